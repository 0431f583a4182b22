"""A run folder: its configuration, its provenance, and the seeds of its parts."""

import json
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from infalign import storage
from infalign._look import Shown
from infalign.comparison.comparison import Comparison
from infalign.config import Config
from infalign.core import (
    RankProcedure,
    Sampling,
    parse_procedure,
    require_by_rank,
)
from infalign.demo import bundled
from infalign.errors import ConfigError, DataError
from infalign.manifest import FILE, Manifest, Stage
from infalign.models.fingerprints import policy_fingerprints, reward_fingerprint
from infalign.models.functions import beside, python_function
from infalign.models.rewards import load_reward
from infalign.models.specs import ModelSpec
from infalign.prompts import Prompt, RunPrompts, fingerprint, run_prompts
from infalign.seeds import derived

from .history import read_current, write_current
from .inputs import Inputs
from .located import FOLDERS, folders_of

__all__ = ["Run", "require_run"]

FORMER = "configs"
"""The folder of the configurations of former calls."""

PACKAGES = ("infalign", "torch", "transformers", "trl", "numpy", "scipy")
FIRST = "provenance.json"
"""The first file of a run; a folder that contains it is a run folder."""


@dataclass(frozen=True)
class Run(Shown):
    """A configuration and the folder its results go to."""

    config: Config
    folder: Path

    @classmethod
    def start(cls, config: Config, folder: Path, check: Callable[["Run"], object]) -> "Run":
        """A new run, or the continuation of the run in the folder.

        - `check`: raises an error if the run cannot be done as configured.

        Raises DataError when a model, reward, judge or prompt cannot be used, and SolveError when
        no policy has the KL.
        """
        run = cls(config, Path(folder))
        require_run(run.folder)
        check(run)  # before the first write
        inputs = {name: run.provenance[name] for name in ("seed", "fingerprints")}
        storage.sweep(run.folder)
        run._record(run.folder / FIRST, inputs, run.provenance, storage.write_json)
        stated = config.model_dump(mode="json", exclude_none=True)
        run._keep_former_configuration(stated)
        text = yaml.safe_dump(stated, sort_keys=False)
        run._record(run.config_file, stated, text, storage.write_text)
        run.use("calibrate", FOLDERS, folders_of(config))
        return run

    def _record(
        self, path: Path, inputs: object, content: Any, write: Callable[[Path, Any], None]
    ) -> None:
        """Write one of the first files, unless it is there from the same inputs."""
        stage = Stage(self.manifest, "calibrate", {"inputs": storage.fingerprint(inputs)})
        if stage.is_current(path):
            self.manifest.require(path)
            return
        with stage.recording(path):
            write(path, content)

    def _keep_former_configuration(self, stated: dict) -> None:
        """Copy the configuration of the last call to `configs/`, if this is another one."""
        if self.config_file not in self.manifest or not self.config_file.exists():
            return
        self.manifest.require(self.config_file)
        text = self.config_file.read_text(encoding="utf-8")
        if yaml.safe_load(text) == storage.as_json(stated):
            return
        folder = self.folder / FORMER
        known = sorted(folder.glob("config-*.yaml")) if folder.is_dir() else []
        if any(path.read_text(encoding="utf-8") == text for path in known):
            return
        path = folder / f"config-{len(known) + 1}.yaml"
        with self.manifest.recording(path, stage="calibrate"):
            storage.write_text(path, text)

    @cached_property
    def manifest(self) -> Manifest:
        """The checksums of the run's files."""
        return Manifest(self.folder)

    @property
    def config_file(self) -> Path:
        """The configuration of the last call."""
        return self.folder / "config.yaml"

    @property
    def store_path(self) -> Path:
        """The folder of the calibration store in use."""
        return self.folder / str(read_current(self.manifest).get("calibration", "calibration"))

    @property
    def design_file(self) -> Path:
        """The design in use, written by the stage `design`."""
        return self.folder / str(read_current(self.manifest).get("design", "design.json"))

    def attempt(self, method: str) -> Path:
        """The folder of the training of a method that is in use."""
        trained = read_current(self.manifest).get("train", {})
        return self.folder / "train" / str(trained.get(method, method))

    def model_folder(self, method: str) -> Path:
        """The folder of the policy that a method trains."""
        return self.attempt(method) / "model"

    @property
    def inputs(self) -> Inputs:
        """The inputs of the stages after the calibration."""
        return self.inputs_of(self.store_path)

    def inputs_of(self, store: Path) -> Inputs:
        """The inputs of the stages after a calibration."""
        choosing = self.choosing_fingerprint
        return Inputs(self.config, self.prompts, self.fingerprints, store, choosing)

    def design_stage(self) -> Stage:
        """The stage `design`."""
        return Stage(self.manifest, "design", self.inputs.design())

    def train_stage(self, method: str) -> Stage:
        """The part of the stage `train` that trains one method; needs the design."""
        self.manifest.require(self.design_file)
        design = storage.read_json(self.design_file)
        return Stage(self.manifest, "train", self.inputs.training(method, design))

    def use(self, stage: str, key: str, value: object) -> None:
        """Name the result that is in use, as `history.write_current`."""
        write_current(self.manifest, stage, key, value)

    @cached_property
    def procedure(self) -> RankProcedure:
        """How the policy will be decoded."""
        return _by_rank("procedure", self.config.procedure)

    @cached_property
    def against(self) -> RankProcedure:
        """How the reference policy that it is compared with is decoded."""
        return _by_rank("against", self.config.against or self.config.procedure)

    @cached_property
    def model_path(self) -> str:
        """Folder or hub id of the reference policy."""
        return str(bundled(self.config.model, "model") or self.config.model)

    @cached_property
    def all_prompts(self) -> RunPrompts:
        """The training and the held-out prompts, and what was decided about them."""
        return run_prompts(self.config)

    @property
    def prompts(self) -> list[Prompt]:
        """The training prompts."""
        return self.all_prompts.train

    @cached_property
    def test_prompts(self) -> list[Prompt]:
        """The held-out prompts; none of them is a training prompt."""
        held_out = self.all_prompts.test
        trained = {json.dumps(p.messages) for p in self.prompts}
        shared = [p.id for p in held_out if json.dumps(p.messages) in trained]
        if shared:
            raise DataError(
                f"{len(shared)} of {len(held_out)} evaluation prompts are training prompts too, "
                f"first {shared[0]!r}. Evaluate on prompts that are not trained on, or "
                "leave `evaluate.prompts` out: part of a source without a test split is held out."
            )
        return held_out

    @cached_property
    def comparison(self) -> Comparison:
        """The trained policies, and those trained elsewhere, on the held-out prompts."""
        return self.compared()

    def compared(self, prompts: Sequence[Prompt] | None = None) -> Comparison:
        """The comparison of the policies that are trained by now.

        - `prompts`: those that all policies answer. Default: the held-out ones.
        """
        config = self.config
        trained = {m: str(self.model_folder(m)) for m in config.methods}
        elsewhere = config.evaluate.policies
        if shared := trained.keys() & elsewhere.keys():
            raise ConfigError(
                f"`evaluate.policies` has {shared.pop()!r}, which this run trains itself. "
                "Give it another name."
            )
        return Comparison(
            reference=config.model,
            policies=trained | elsewhere,
            reward=config.reward,
            gold=config.evaluate.gold,
            answers=config.evaluate.answers,
            judge=config.evaluate.judge,
            judge_pairs=config.evaluate.judge_pairs,
            judge_max_new_tokens=config.evaluate.judge_max_new_tokens,
            judge_unreadable=config.evaluate.judge_unreadable,
            prompts=self.test_prompts if prompts is None else prompts,
            procedures=(config.procedure, Sampling().spec, *config.evaluate.procedures),
            against=config.against,
            sampling=config.sampling,
            samples=config.evaluate.samples,
            kl_samples=config.evaluate.kl_samples,
            seed=config.seed,
            seeds=dict.fromkeys(trained, config.training_seed),
            dtype=config.dtype,
            trust_remote_code=config.trust_remote_code,
            renews=True,
        )

    @cached_property
    def reward(self):
        """The raw reward as a TRL reward function."""
        config = self.config
        with beside(config.folder):
            return load_reward(
                config.reward, dtype=config.dtype, trust_remote_code=config.trust_remote_code
            )

    @cached_property
    def choosing_reward(self):
        """The gold reward that chooses checkpoints, as a TRL reward function; None for the
        objective."""
        return self._of_choice(load_reward)

    @cached_property
    def choosing_fingerprint(self) -> str | None:
        """The fingerprint of `choosing_reward`."""
        return self._of_choice(reward_fingerprint)

    def _of_choice(self, read: Callable[..., Any]) -> Any:
        config, name = self.config, self.config.train.gold
        if name is None:
            return None
        loading = {"dtype": config.dtype, "trust_remote_code": config.trust_remote_code}
        with beside(config.folder):
            return read(config.evaluate.gold[name], **loading)

    def seed(self, stage: str, part: int = 0) -> int:
        """The seed of one part of one stage, independent of those of other parts."""
        return derived(self.config.seed, stage, part)

    @cached_property
    def provenance(self) -> dict:
        """Versions, seed, and fingerprints of all inputs."""
        return {
            "versions": {name: _version(name) for name in PACKAGES}
            | {"python": platform.python_version()},
            "git_revision": _git_revision(),
            "seed": self.config.seed,
            "fingerprints": self.fingerprints,
            **({"functions": self.functions} if self.functions else {}),
        }

    @cached_property
    def functions(self) -> dict[str, str]:
        """Python functions of the configuration, and the file that each is loaded from."""
        config = self.config
        named = {
            "reward": config.reward,
            **{f"evaluate.gold.{name}": spec for name, spec in config.evaluate.gold.items()},
            "evaluate.judge": config.evaluate.judge or "",
            "evaluate.answers": config.evaluate.answers,
        }
        own = {k: ModelSpec.parse(v).inner for k, v in named.items() if v}
        with beside(config.folder):
            return {
                key: str(python_function(spec.text, key).file)
                for key, spec in own.items()
                if spec.kind == "python"
            }

    @cached_property
    def fingerprints(self) -> dict[str, object]:
        """The fingerprints that a calibration store must have to be used in this run."""
        config = self.config
        loading: dict[str, Any] = {
            "dtype": config.dtype,
            "trust_remote_code": config.trust_remote_code,
        }
        with beside(config.folder):
            reward = reward_fingerprint(config.reward, **loading)
            prompts = fingerprint(self.prompts, config.reward)
        return {
            **policy_fingerprints(config.model, **loading),
            "reward": reward,
            "prompts": prompts,
            "sampling": config.sampling.model_dump(),
        }


def _by_rank(key: str, spec: str) -> RankProcedure:
    """The procedure under a key; the configuration has checked that it selects by rank."""
    return require_by_rank(key, parse_procedure(spec))


def require_run(folder: Path) -> None:
    """Raise ConfigError unless `folder` holds a run or is empty, so that other files are left
    alone; DataError if it holds a run without checksums."""
    if not _is_run(folder):
        raise ConfigError(
            f"{folder} is not empty and holds no run (no {FIRST}). "
            "Choose another folder with --out."
        )
    if (folder / FILE).exists():
        return
    unchecked = [n for n in ("design.json", "train", "evaluation") if (folder / n).exists()]
    if unchecked:
        raise DataError(
            f"{folder} has no {FILE}, so nothing shows whether its files are what was written: "
            "infalign 0.1.0 made it, or the file was removed. Continue with the version that made "
            f"it; or remove {', '.join(unchecked)} and run the stages again. The calibration has "
            "checksums of its own and is used again."
        )


def _is_run(folder: Path) -> bool:
    """Whether `folder` holds a run or is empty; a folder with other files is left alone."""
    if not folder.exists() or (folder / FIRST).exists():
        return True
    if (folder / "config.yaml").exists() and (folder / FILE).exists():  # the first file is missing
        return True
    # A run that is killed while it writes its first file leaves only that file. A store that was
    # merged or collected elsewhere may be there before the run starts.
    return folder.is_dir() and all(
        p.name == storage.LOCK
        or storage.LEFT.fullmatch(p.name)
        or (p.name == "calibration" and (p / "manifest.json").exists())
        for p in folder.iterdir()
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
