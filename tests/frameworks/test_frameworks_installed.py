"""verl and OpenRLHF themselves load the shaped reward; each test is skipped where it is not
installed. Neither fits beside the other: see docs/frameworks.md for an environment of each."""

import ast
import asyncio
import importlib.util
from pathlib import Path

import framework_run as given
import numpy as np
import pytest

from infalign.frameworks import settings
from infalign.frameworks.callback import TrainingStopped
from infalign.frameworks.export import export_prompts
from infalign.frameworks.opened import open_run, policy_text
from infalign.frameworks.serving import make_app

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours to mend

needs_verl = pytest.mark.skipif(not importlib.util.find_spec("verl"), reason="needs verl")
needs_openrlhf = pytest.mark.skipif(
    not importlib.util.find_spec("openrlhf"), reason="needs openrlhf"
)
REPLIES = [("a", "red"), ("b", "seven"), ("c", "Green, I think."), ("a", "x y z")] * 8


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return open_run(given.make_run(tmp_path_factory.mktemp("installed") / "run"))


@pytest.fixture(scope="module")
def files(run, tmp_path_factory):
    return tmp_path_factory.mktemp("files")


# verl


def verl_config(run, files, *overrides):
    """verl's own configuration, with what `infalign export-prompts` prints."""
    from hydra import compose, initialize_config_module
    from verl.experimental.reward_loop import migrate_legacy_reward_impl

    words = export_prompts(run, "verl", files / "verl")
    words += ["actor_rollout_ref.rollout.name=vllm", "reward.num_workers=1", *overrides]
    with initialize_config_module("verl.trainer.config", version_base=None):
        return migrate_legacy_reward_impl(compose("ppo_trainer", overrides=words))


def verl_batch(tokenizer, replies, ids=None):
    import torch
    from verl import DataProto

    tokens = [tokenizer(reply, add_special_tokens=False)["input_ids"] for _, reply in replies]
    width = max(map(len, tokens))
    padded = [t + [tokenizer.pad_token_id] * (width - len(t)) for t in tokens]
    mask = [[1, 1] + [1] * len(t) + [0] * (width - len(t)) for t in tokens]
    rows = [{"prompt_id": i, "index": 0} for i in ids or [i for i, _ in replies]]
    return DataProto.from_dict(
        tensors={
            "prompts": torch.ones(len(replies), 2, dtype=torch.long),
            "responses": torch.tensor(padded),
            "attention_mask": torch.tensor(mask),
        },
        non_tensors={
            "data_source": np.array(["infalign"] * len(replies), dtype=object),
            "reward_model": np.array([{"ground_truth": ""}] * len(replies), dtype=object),
            "extra_info": np.array(rows, dtype=object),
        },
    )


MANAGER = (
    "reward.reward_manager.source=importlib",
    "reward.reward_manager.name=ShapedRewardManager",
    "reward.reward_manager.module.path=pkg://infalign.frameworks.verl_manager",
)


@needs_verl
@pytest.mark.parametrize("manager", [(), MANAGER], ids=["naive", "ours"])
def test_verls_worker_scores_a_batch_in_one_call(run, files, manager):
    from verl.experimental.reward_loop import RewardLoopWorker
    from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

    together = (
        "+reward.custom_reward_function.reward_kwargs.window=60",
        f"+reward.custom_reward_function.reward_kwargs.batch={len(REPLIES)}",
    )
    worker = RewardLoopWorker(verl_config(run, files, *manager, *together))
    data = verl_batch(worker.input_tokenizer, REPLIES)
    given.CALLS.clear()
    results = worker.loop.run_until_complete(worker.compute_score_batch(data))
    assert given.CALLS == [len(REPLIES)]
    for f, reply in zip(results, REPLIES, strict=True):
        wanted = given.expected(*reply)
        assert f["reward_extra_info"] == pytest.approx(wanted)
        assert f["reward_score"] == f["reward_extra_info"]["score"]
    scores = [f["reward_score"] for f in results]
    placed = worker.reward_manager.assemble_rm_scores(data, scores)
    assert placed.tolist() == RewardManagerBase.assemble_rm_scores(data, scores).tolist()
    print("verl", type(worker.reward_manager).__name__, given.CALLS, results[0])


@needs_verl
@pytest.mark.parametrize("manager", [(), MANAGER, ("reward.reward_manager.name=rate_limited",)])
def test_verls_worker_stops_at_an_unknown_prompt(run, files, manager):
    from verl.experimental.reward_loop import RewardLoopWorker

    worker = RewardLoopWorker(verl_config(run, files, *manager))
    data = verl_batch(worker.input_tokenizer, REPLIES[:1], ids=["nobody"])
    with pytest.raises(
        TrainingStopped, match="prompt_id 'nobody' is not one of the 5 prompts"
    ) as e:
        worker.loop.run_until_complete(worker.compute_score_batch(data))
    print("verl stops:", e.value)


@needs_verl
def test_verls_ray_workers_score_and_hand_their_error_to_the_trainer(run, files, monkeypatch):
    import ray
    from verl.experimental.reward_loop import RewardLoopManager

    monkeypatch.setenv("PYTHONPATH", str(Path(given.__file__).parent))  # the reward's module
    config = verl_config(run, files)
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        manager = RewardLoopManager(config)
        tokenizer = policy_text(run).tokenizer
        scores = manager.compute_rm_score(verl_batch(tokenizer, REPLIES)).batch["rm_scores"]
        wanted = [given.expected(*reply)["score"] for reply in REPLIES]
        assert scores.sum(1).tolist() == pytest.approx(wanted, rel=1e-6)
        with pytest.raises(ray.exceptions.RayTaskError, match="prompt_id 'nobody' is not one") as e:
            manager.compute_rm_score(verl_batch(tokenizer, REPLIES[:2], ids=["a", "nobody"]))
        print("verl on Ray:", scores.sum(1)[:2], str(e.value).splitlines()[-1])
    finally:
        ray.shutdown()


@needs_verl
def test_verls_trainer_reads_the_settings_and_has_our_objective(run, files):
    """Its advantage is R − β Σ log π/π_ref, less the mean of the others in the group."""
    import torch
    from verl import DataProto
    from verl.trainer.ppo.core_algos import compute_rloo_outcome_advantage, get_kl_controller
    from verl.trainer.ppo.ray_trainer import apply_kl_penalty

    config = verl_config(run, files)
    assert config.algorithm.adv_estimator == "rloo" and config.algorithm.use_kl_in_reward
    assert config.algorithm.kl_ctrl.kl_coef == given.BETA
    rng = torch.Generator().manual_seed(0)
    policy, reference = torch.randn(2, 4, 3, generator=rng, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]])
    scores = torch.zeros(4, 3, dtype=torch.float64)
    scores[range(4), mask.sum(1) - 1] = torch.tensor([0.1, 0.5, 0.2, 0.9], dtype=torch.float64)
    data = DataProto.from_dict(
        tensors={
            "token_level_scores": scores,
            "response_mask": mask,
            "old_log_probs": policy,
            "ref_log_prob": reference,
        }
    )
    controller = get_kl_controller(config.algorithm.kl_ctrl)
    data, _ = apply_kl_penalty(data, controller, config.algorithm.kl_penalty)
    advantages, _ = compute_rloo_outcome_advantage(
        data.batch["token_level_rewards"], mask, np.array([0, 0, 0, 0]), config=config.algorithm
    )
    own = scores.sum(1) - given.BETA * ((policy - reference) * mask).sum(1)
    wanted = own - (own.sum() - own) / 3
    assert torch.allclose(advantages, wanted[:, None] * mask, atol=1e-6)


# OpenRLHF


class Engine:
    """A vLLM engine that answers one text."""

    def __init__(self, tokenizer, reply):
        self.tokens = tokenizer(reply + "<|end|>", add_special_tokens=False)["input_ids"]

    async def generate(self, prompt_token_ids, sampling_params, multi_modal_data=None):
        class Output:
            token_ids, finish_reason, logprobs = self.tokens, "stop", None

        class Answer:
            outputs = (Output,)

        return Answer


class Sampling:
    max_tokens, logprobs = 32, None


def rollouts(endpoint, text, replies, labels=None):
    """What OpenRLHF's executor gives for these replies, all at one time."""
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    executor = SingleTurnAgentExecutor([str(endpoint)])
    labels = labels or [i for i, _ in replies]

    async def all_at_once():
        return await asyncio.gather(
            *(
                executor.execute(
                    text.prompt(given.messages(i)),
                    label,
                    Sampling,
                    256,
                    text.tokenizer,
                    Engine(text.tokenizer, reply),
                )
                for (i, reply), label in zip(replies, labels, strict=True)
            )
        )

    return asyncio.run(all_at_once())


@needs_openrlhf
@pytest.mark.parametrize("named", ["by id", "by text"])
def test_openrlhfs_executor_takes_the_file_that_is_exported(run, files, named):
    words = export_prompts(run, "openrlhf", files / "openrlhf")
    file = words[words.index("--reward.remote_url") + 1]
    labels = None if named == "by id" else [""] * len(REPLIES)
    given.CALLS.clear()
    results = rollouts(file, policy_text(run), REPLIES, labels)
    assert sum(given.CALLS) == len(REPLIES) and len(given.CALLS) < len(REPLIES)
    for f, reply in zip(results, REPLIES, strict=True):
        wanted = given.expected(*reply)
        assert f["reward"].item() == pytest.approx(wanted["score"], rel=1e-6)
        assert f["scores"].item() == pytest.approx(wanted["quantile"], rel=1e-6)
        assert f["extra_logs"]["raw_reward"].item() == wanted["raw_reward"]
    print("OpenRLHF", given.CALLS, results[0]["reward"], results[0]["extra_logs"])


@needs_openrlhf
def test_openrlhfs_executor_is_stopped_by_an_unknown_prompt(run, files):
    words = export_prompts(run, "openrlhf", files / "openrlhf")
    file = words[words.index("--reward.remote_url") + 1]
    with pytest.raises(
        TrainingStopped, match="prompt_id 'nobody' is not one of the 5 prompts"
    ) as e:
        rollouts(file, policy_text(run), REPLIES[:2], ["a", "nobody"])
    print("OpenRLHF stops:", e.value)


@needs_openrlhf
def test_openrlhfs_executor_in_an_actor_hands_its_error_to_the_trainer(run, files, monkeypatch):
    import ray

    words = export_prompts(run, "openrlhf", files / "openrlhf")
    file = words[words.index("--reward.remote_url") + 1]

    @ray.remote
    class Rollouts:
        """As OpenRLHF's actor, without vLLM."""

        async def one(self, label):
            return await asyncio.to_thread(rollouts, file, policy_text(run), REPLIES[:1], [label])

    monkeypatch.setenv("PYTHONPATH", str(Path(given.__file__).parent))
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        actor = Rollouts.remote()
        assert ray.get(actor.one.remote("a"))[0]["reward"].shape == (1,)
        with pytest.raises(ray.exceptions.RayTaskError, match="prompt_id 'nobody' is not one") as e:
            ray.get(actor.one.remote("nobody"))
        print("OpenRLHF on Ray:", str(e.value).splitlines()[-1])
    finally:
        ray.shutdown()


@needs_openrlhf
def test_openrlhfs_executor_asks_the_server(run):
    from test_serve_reward import serving

    from infalign.frameworks.opened import run_scorer

    with serving(make_app(run_scorer(run), text=policy_text(run))) as url:
        results = rollouts(url, policy_text(run), REPLIES)
        for f, reply in zip(results, REPLIES, strict=True):
            assert f["reward"] == pytest.approx([given.expected(*reply)["score"]])
    print(
        "OpenRLHF over HTTP", results[0]["reward"], results[0]["scores"], results[0]["extra_logs"]
    )


@needs_openrlhf
def test_openrlhf_has_every_flag_that_is_printed(run):
    package = Path(importlib.util.find_spec("openrlhf").origin).parent
    known = {}
    for node in ast.walk(ast.parse((package / "cli" / "train_ppo_ray.py").read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            choices = [k.value for k in node.keywords if k.arg == "choices"]
            name = getattr(node.args[0], "value", None)  # a few are put together in a loop
            known[name] = ast.literal_eval(choices[0]) if choices else None
    words = settings.openrlhf(run, Path("train.jsonl"), Path("reward.py"), True)
    flags = [w for w in words if w.startswith("--")]
    assert set(flags) <= set(known)
    for flag in ("--algo.advantage.estimator", "--algo.kl.estimator"):
        assert words[words.index(flag) + 1] in known[flag]
