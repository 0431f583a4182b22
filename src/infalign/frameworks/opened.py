"""The scorer of a run, opened from its folder, from a server, or from its parts."""

from pathlib import Path

from infalign.calibration.choice import CALIBRATORS, ECDF
from infalign.config import Prompts, load_config, require_trust
from infalign.core import AbstractTransform, parse_transform, transform_from_json
from infalign.errors import ConfigError, DataError
from infalign.manifest import Manifest
from infalign.models.fingerprints import reward_fingerprint
from infalign.models.functions import beside
from infalign.models.rewards import load_reward
from infalign.models.specs import ModelSpec
from infalign.pipeline.calibration import open_calibration
from infalign.pipeline.folder import FIRST, Run
from infalign.pipeline.history import read_current
from infalign.pipeline.located import located
from infalign.pipeline.made_for import require_made_for
from infalign.pipeline.read import read_calibration, read_design
from infalign.prompts import fingerprint, load_prompts
from infalign.shaping import AsCalibrated, Monitor, Shaper, TrainingReward
from infalign.storage import read_json
from infalign.stores import CalibrationStore

from .prompt_text import PolicyText, PromptNames
from .scorer import RawScorer, Scorer, ServerScorer, ShapedScorer

__all__ = [
    "open_reward",
    "open_run",
    "open_scorer",
    "policy_text",
    "require_prompts",
    "run_scorer",
    "run_shaper",
]


def open_run(
    folder: Path | str,
    directory: Path | str | None = None,
    *,
    trust_remote_code: bool = False,
) -> Run:
    """The run in `folder`, for reading; DataError if the stages calibrate and design are not done
    or if their files have changed.

    - `directory`: where relative paths of the run's configuration are looked for that are not
      where the run found them. Default: the working directory, which differs in a framework's
      workers.
    - `trust_remote_code`: allow the code that comes with the run's models. The run's configuration
      may ask for it, but cannot grant it: the folder may be somebody else's. ConfigError if it is
      needed and not given.
    """
    folder = Path(folder)
    manifest = Manifest(folder)
    for stage in (None, "design"):
        name = read_current(manifest).get(stage, "design.json") if stage else "config.yaml"
        if not (folder / name).is_file():
            raise DataError(
                f"{folder} is not a designed run: it has no {name}. Make it one with: "
                f"infalign run CONFIG.yaml --until design --out {folder}"
            )
        manifest.require(folder / name)
    config = load_config(folder / "config.yaml")
    require_trust(config, folder / "config.yaml", trust_remote_code)
    return Run(located(config, folder, None if directory is None else Path(directory)), folder)


def open_scorer(
    run=None,
    *,
    server: str | None = None,
    store=None,
    transform: str | AbstractTransform | None = None,
    reward=None,
    calibrator: str = ECDF,
    prompts=None,
    strip: bool | None = None,
    raw: bool = False,
    directory=None,
    trust_remote_code: bool = False,
) -> Scorer:
    """The scorer of a run folder, of a server, or of a store, a transform and a reward.

    - `run`: a run folder that is calibrated and designed.
    - `server`: alternatively, the address of an `infalign serve-reward` server.
    - `store`, `transform`, `reward`: alternatively, a store or its folder; a transform, its
      specification or a design.json; and a reward, or its name in a configuration.
    - `calibrator`: with `store`, as in a configuration, except `auto`.
    - `prompts`: with `store`, a JSON Lines file of prompts; required if callers send no messages.
      They must be those of the store, by their content.
    - `strip`: with `store` or `reward`, remove white space at both ends of responses. Default: as
      the responses of `store` were; False if it does not say.
    - `raw`: score with the raw reward, either a run's or `reward` alone.
    - `directory`: with `run`, as in `open_run`.
    - `trust_remote_code`: allow the code that comes with the models.

    Raises ConfigError for other combinations, and DataError if a file or reward is missing, or if
    the reward or the prompts have changed since calibration. A reward that is a function has no
    name to compare; a warning says so.
    """
    pieces = {"store": store, "transform": transform, "reward": reward, "prompts": prompts}
    named = sorted(name for name, value in pieces.items() if value is not None)
    needed = {"reward"} if raw else {"store", "transform", "reward"}
    sources = (run is not None, server is not None, bool(named))
    if sum(sources) != 1 or (named and not needed <= set(named)) or (server and raw):
        given = ["run"] * sources[0] + ["server"] * sources[1] + named
        raise ConfigError(
            "A scorer needs exactly one of `run`, `server`, or `store`, `transform` and `reward` "
            f"together{' (for `raw=True`: `reward`)' if raw else ''}; got "
            f"{', '.join(f'`{name}`' for name in given) or 'none of them'}."
        )
    if server is not None:
        return ServerScorer(server)
    if run is not None:
        opened = open_run(run, directory, trust_remote_code=trust_remote_code)
        return run_scorer(opened, raw=raw)
    asked = None if prompts is None else load_prompts(Prompts(file=str(prompts)))
    names = None if asked is None else PromptNames(asked)
    spec = reward if isinstance(reward, str) else None

    def loaded():
        return reward if spec is None else load_reward(spec, trust_remote_code=trust_remote_code)

    if raw:
        return RawScorer(loaded(), names, strip=bool(strip))
    store = store if isinstance(store, CalibrationStore) else CalibrationStore.open(store)
    strip = bool(store.strip) if strip is None else strip
    store.require_strip(strip)
    store.require_answer("whole")  # what trainers and callers send
    require_made_for(store, spec, asked, trust_remote_code=trust_remote_code)
    if calibrator not in CALIBRATORS:
        raise ConfigError(f"`calibrator` must be {', '.join(CALIBRATORS)}; got {calibrator!r}.")
    shaper = _shaper(store, _transform(transform), CALIBRATORS[calibrator])
    return ShapedScorer(RawScorer(loaded(), names, strip=strip), shaper)


def run_scorer(run: Run, *, raw: bool = False) -> RawScorer | ShapedScorer:
    """The scorer of a run: its reward, with its calibration and transform unless `raw` is true."""
    text = policy_text(run)
    names = PromptNames(run.prompts, text.prompt if text else None)
    shaper = run_shaper(run)  # before the reward's code is imported: it may not be the run's
    scorer = RawScorer(run.reward, names, strip=run.config.sampling.strip)
    return scorer if raw else ShapedScorer(scorer, shaper)


def open_reward(run, *, trust_remote_code: bool = False) -> AsCalibrated:
    """The shaped reward of a run folder as a TRL reward function, which any Python code can call.
    The column `prompt_id` names the prompt of each response.

    The run's reward gets prompts, completions and columns as in calibration, whether prompts and
    completions come as strings or as messages. Raises DataError as `open_scorer` does.
    """
    opened = open_run(run, trust_remote_code=trust_remote_code)
    shaper = run_shaper(opened)  # before the reward's code is imported: it may not be the run's
    shaped = TrainingReward(opened.reward, shaper, Monitor(), prefix="shaped_")
    return AsCalibrated(
        shaped,
        {p.id: p.value for p in opened.prompts},
        columns={p.id: p.columns for p in opened.prompts},
        strip=opened.config.sampling.strip,
    )


def policy_text(run: Run) -> PolicyText | None:
    """The run's tokenizer; None if its model is on a server."""
    if not ModelSpec.parse(run.config.model).has_weights:
        return None
    return PolicyText(run.model_path, run.config.trust_remote_code)


def require_prompts(run: Run) -> None:
    """Raise DataError unless the run's prompts are those that it recorded and that its calibration
    has, by their content."""
    config, source = run.config, run.config.prompts
    store = open_calibration(run.store_path, run.prompts, config.calibration.samples, config.reward)
    with beside(config.folder):
        own = fingerprint(run.prompts, config.reward)
    recorded = [store.provenance.get("prompts")]
    if run.manifest.listed(run.folder / FIRST):
        run.manifest.require(run.folder / FIRST)
        recorded.append(read_json(run.folder / FIRST)["fingerprints"]["prompts"])
    if all(stated == own for stated in recorded):
        return
    unknown = [p.id for p in run.prompts if p.id not in store]
    why = "some are missing, or have other messages or columns"
    if unknown:
        why = f"{len(unknown)} of {len(run.prompts)} are not among them, first {unknown[0]!r}"
    raise DataError(
        f"{source.file or source.dataset} does not have the prompts of the run in {run.folder}: "
        f"{why}. Nothing was written. Restore what the run has read, or run it again with: "
        f"infalign run CONFIG.yaml --until design --out {run.folder}"
    )


def run_shaper(run: Run) -> Shaper:
    """The shaper that the run trains with; DataError if its reward or prompts have changed."""
    store = open_calibration(
        run.store_path, run.prompts, run.config.calibration.samples, run.config.reward
    )
    # A run also compares the model. Here the framework uses its own model, and hashing the weights
    # would take minutes in each worker.
    with beside(run.config.folder):
        reward = reward_fingerprint(
            run.config.reward,
            dtype=run.config.dtype,
            trust_remote_code=run.config.trust_remote_code,
        )
        prompts = fingerprint(run.prompts, run.config.reward)
    store.require(reward=reward, prompts=prompts)
    store.require_strip(run.config.sampling.strip)
    store.require_answer("whole")  # what trainers and callers send
    return _shaper(store, read_design(run).transform, read_calibration(run, store))


def _shaper(store, transform: AbstractTransform, calibrator) -> Shaper:
    return Shaper(
        store, transform, calibrator, smoothing="none" if transform.bounded else "add-half"
    )


def _transform(value) -> AbstractTransform:
    if isinstance(value, AbstractTransform):
        return value
    if Path(value).is_file():
        return transform_from_json(read_json(Path(value))["transform"])
    return parse_transform(str(value))
