"""RLOO on the shaped reward of a run, on as many processes as accelerate starts.

`train.sh` starts it. Each process scores its own responses with a reward model of its own; with
`--server` all ask one that `infalign serve-reward RUN` has started.
"""

from dataclasses import dataclass

from datasets import load_dataset
from trl import RLOOConfig, RLOOTrainer, TrlParser

from infalign.frameworks import open_reward, open_run
from infalign.models.rewards import load_reward


@dataclass
class Arguments:
    """What is trained on what."""

    run_folder: str
    """Run folder, brought up to `design`."""

    prompts: str
    """train.parquet of `infalign export-prompts RUN --for trl`."""

    server: str | None = None
    """Address of `infalign serve-reward RUN`, instead of a reward model in each process."""


def main() -> None:
    """Train, and save the model into the output folder."""
    arguments, config = TrlParser((Arguments, RLOOConfig)).parse_args_and_config()
    # load_reward makes a reward function of an address; the server answers shaped rewards.
    reward = (
        load_reward(arguments.server) if arguments.server else open_reward(arguments.run_folder)
    )
    trainer = RLOOTrainer(
        model=open_run(arguments.run_folder).model_path,
        reward_funcs=reward,
        args=config,
        train_dataset=load_dataset("parquet", data_files=arguments.prompts, split="train"),
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
