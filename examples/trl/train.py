"""RLOO on the shaped reward of a run, in the processes that accelerate starts.

`train.sh` runs this script. Each process loads its own reward model; with `--server` all ask
the server that `infalign serve-reward RUN` has started.
"""

from dataclasses import dataclass

from datasets import load_dataset
from trl import RLOOConfig, RLOOTrainer, TrlParser

from infalign.frameworks import open_reward, open_run
from infalign.models.rewards import load_reward


@dataclass
class Arguments:
    """The run, its prompts, and its reward."""

    run_folder: str
    """Run folder, finished up to `design`."""

    prompts: str
    """train.parquet of `infalign export-prompts RUN --for trl`."""

    server: str | None = None
    """Address of `infalign serve-reward RUN`, instead of a reward model in each process."""


def main() -> None:
    """Train, and save the model in the output folder."""
    arguments, config = TrlParser((Arguments, RLOOConfig)).parse_args_and_config()
    # load_reward turns an address into a reward function; the server answers with shaped rewards.
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
