"""The configuration of a run: one schema, from which `--help`, docs and error messages come."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from infalign.core import RankProcedure, parse_procedure, parse_transform

from .errors import ConfigError


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


SectionType = TypeVar("SectionType", bound=Section)


class Prompts(Section):
    """Where prompts come from: a file, a bundled set, or a data set of the hub."""

    file: Annotated[str | None, Field(description="JSON Lines with `prompt` (text or messages), optionally `prompt_id` and `split`; or bundled:helpful, bundled:harmless.")] = None  # fmt: skip  # noqa: E501
    dataset: Annotated[str | None, Field(description="Hub id of a data set, instead of a file.")] = None  # fmt: skip  # noqa: E501
    config: Annotated[str | None, Field(description="The data set's configuration or folder.")] = None  # fmt: skip  # noqa: E501
    split: Annotated[str, Field(description="Which part to use; rows without one belong to all.")] = "train"  # fmt: skip  # noqa: E501
    limit: Annotated[PositiveInt | None, Field(description="Use the first so many.")] = None
    column: Annotated[str, Field(description="Column that holds the prompt.")] = "prompt"

    @model_validator(mode="after")
    def _one_source(self):
        if self.file and self.dataset:
            raise ValueError("give either `file` or `dataset`, not both")
        return self


class SamplingSettings(Section):
    """How responses are drawn, everywhere: calibration, training and evaluation."""

    temperature: Annotated[PositiveFloat, Field(description="Softmax temperature.")] = 1.0
    top_p: Annotated[PositiveFloat, Field(description="Mass of the nucleus that tokens are drawn from, in evaluations without training; 1 is all.", le=1)] = 1.0  # fmt: skip  # noqa: E501
    max_new_tokens: Annotated[PositiveInt, Field(description="Longest response, in tokens.")] = 128
    batch_size: Annotated[PositiveInt, Field(description="Responses generated at once.")] = 256


class Calibration(Section):
    """Reference samples that turn rewards into quantiles."""

    samples: Annotated[PositiveInt, Field(description="Reference samples per prompt, K.", ge=2)] = 64  # fmt: skip  # noqa: E501
    calibrator: Annotated[Literal["auto", "ecdf", "tail", "pooled", "pooled-ranks"], Field(description="How samples become quantiles. ecdf: the rank among a prompt's own. tail: that, and a Pareto tail beyond them. pooled: prompts lend each other the shape of the reward. pooled-ranks: the same, of the rank among all prompts' samples. auto: the best that is safe, by held-out samples.")] = "auto"  # fmt: skip  # noqa: E501


OnlineMethod = Literal["rloo", "grpo", "group", "identity", "rlhf", "vbon", "pkpo", "rs-grpo"]
"""What is maximised on policy, with TRL's trainers; `training.methods` makes each."""

OfflineMethod = Literal["likelihood", "regression", "qrpo", "ipo", "dpo", "bonbon"]
"""What is learned from the calibration samples alone; `training.tasks` makes each."""

Method = OnlineMethod | OfflineMethod

WHOLE_GROUPS = ("group", "pkpo")
"""Methods that draw subsets of a group, one response fewer than it has."""


class Training(Section):
    """How the policy is trained."""

    method: Annotated[Method, Field(description="rloo: InfAlign-CTRL, the shaped reward, with TRL's RLOOTrainer. grpo: the same with its GRPOTrainer. group: the inference-time win rate itself, from whole groups. likelihood, regression: the tilt of the shaped reward, from the calibration samples alone.")] = "rloo"  # fmt: skip  # noqa: E501
    baselines: Annotated[tuple[Method, ...], Field(description="Other methods, trained to the same KL and compared. rlhf: the raw reward. identity: the calibrated one. vbon: its logarithm. pkpo: the mean best of n raw rewards. rs-grpo: an exponential utility of the raw reward. From the calibration samples alone: qrpo, ipo, dpo, bonbon.")] = ("rlhf",)  # fmt: skip  # noqa: E501
    warm_start: Annotated[int, Field(description="Passes over the calibration samples before the first on-policy step.", ge=0)] = 1  # fmt: skip  # noqa: E501
    warm_start_learning_rate: Annotated[PositiveFloat, Field(description="AdamW step size of those passes.")] = 2e-5  # fmt: skip  # noqa: E501
    warm_start_batch_size: Annotated[PositiveInt, Field(description="Samples in each step of those passes.")] = 64  # fmt: skip  # noqa: E501
    passes: Annotated[PositiveInt, Field(description="Passes over the calibration samples of methods that learn from them alone; step size and batch as in the warm start.")] = 4  # fmt: skip  # noqa: E501
    steps: Annotated[int, Field(description="On-policy steps.", ge=0)] = 500
    learning_rate: Annotated[PositiveFloat, Field(description="AdamW step size of the on-policy steps.")] = 1e-5  # fmt: skip  # noqa: E501
    batch_size: Annotated[PositiveInt, Field(description="Responses in each gradient step.")] = 256
    group: Annotated[PositiveInt, Field(description="Responses per prompt in a step.", ge=2)] = 8
    lora: Annotated[int, Field(description="Rank of low-rank adapters; 0 trains all weights.", ge=0)] = 0  # fmt: skip  # noqa: E501
    save_steps: Annotated[PositiveInt, Field(description="Steps between checkpoints.")] = 50
    validation: Annotated[float, Field(description="Share of the training prompts kept aside to land on the KL that prompts not trained on have; 0 lands on the training prompts.", ge=0, lt=1)] = 0.15  # fmt: skip  # noqa: E501
    trl: Annotated[dict[str, Any], Field(description="Further options of TRL's RLOOConfig (of GRPOConfig for grpo), under its own names.")] = {}  # fmt: skip  # noqa: E501

    def trained_prompts(self, given: int) -> int:
        """How many of the `given` prompts, the first ones, are trained on and not kept aside."""
        return given - round(given * self.validation)


class EvaluationPrompts(Prompts):
    """Held-out prompts; what is not given is taken from `prompts`."""

    split: Annotated[str, Field(description="Which part to use.")] = "test"


class Evaluation(Section):
    """The comparison on held-out prompts."""

    prompts: Annotated[EvaluationPrompts, Field(description="Held-out prompts; the source is that of `prompts` unless given.")] = EvaluationPrompts()  # fmt: skip  # noqa: E501
    samples: Annotated[PositiveInt, Field(description="Responses per prompt and policy.")] = 32
    procedures: Annotated[tuple[str, ...], Field(description="Further ways of decoding to compare under, beside plain sampling and `procedure`; majority-vote:N too.")] = ()  # fmt: skip  # noqa: E501
    policies: Annotated[dict[str, str], Field(description="Policies trained elsewhere, name: folder or hub id, to compare as well.")] = {}  # fmt: skip  # noqa: E501
    gold: Annotated[dict[str, str], Field(description="Held-out rewards, name: reward, that say what is kept by `reward` is worth; reward hacking shows there.")] = {}  # fmt: skip  # noqa: E501
    answers: Annotated[str, Field(description="How majority-vote:N finds the answer in a response: numeric, or python:package.module:function.")] = "numeric"  # fmt: skip  # noqa: E501
    judge: Annotated[str | None, Field(description="Who compares kept responses pairwise, in both orders: http(s)://HOST/v1#MODEL, python:package.module:function or reward:REWARD.")] = None  # fmt: skip  # noqa: E501
    judge_pairs: Annotated[PositiveInt, Field(description="Pairs per prompt and policy that the judge compares.")] = 1  # fmt: skip  # noqa: E501
    kl_samples: Annotated[PositiveInt, Field(description="Responses per prompt on which the KL is measured, at most.")] = 8  # fmt: skip  # noqa: E501


class Config(Section):
    """Everything a run needs; `infalign run CONFIG.yaml` reads it."""

    model: Annotated[str, Field(description="The reference policy: folder or hub id of a causal LM, or bundled:language-model; for `infalign calibrate` http(s)://HOST/v1#MODEL and vllm:PATH too.")]  # fmt: skip  # noqa: E501
    reward: Annotated[str, Field(description="Folder or hub id of a sequence classifier, python:package.module:function, http(s)://HOST/PATH of a reward server, or bundled:helpful, bundled:harmless.")]  # fmt: skip  # noqa: E501
    prompts: Annotated[Prompts, Field(description="Training prompts.")]
    procedure: Annotated[str, Field(description="How the policy will be decoded: sampling, best-of-n:N, worst-of-n:N.")] = "best-of-n:4"  # fmt: skip  # noqa: E501
    against: Annotated[str | None, Field(description="How the reference it is compared with is decoded; the same unless given.")] = None  # fmt: skip  # noqa: E501
    kl: Annotated[PositiveFloat | None, Field(description="KL budget, in nats per sequence.")] = None  # fmt: skip  # noqa: E501
    beta: Annotated[PositiveFloat | None, Field(description="KL strength, instead of a budget: the policy gets the KL that theory gives.")] = None  # fmt: skip  # noqa: E501
    transform: Annotated[str, Field(description="optimal, identity, log, probit or exponential:T.")] = "optimal"  # fmt: skip  # noqa: E501
    sampling: SamplingSettings = SamplingSettings()
    calibration: Calibration = Calibration()
    train: Training = Training()
    evaluate: Evaluation = Evaluation()
    engine: Annotated[Literal["local", "ray"], Field(description="Where calibration samples are drawn and scored: local, or ray: the cluster that RAY_ADDRESS names, else one on this machine.")] = "local"  # fmt: skip  # noqa: E501
    seed: Annotated[int, Field(description="All randomness follows from it.", ge=0)] = 0
    evidence: Annotated[bool, Field(description="False marks a try-out whose numbers are not evidence.")] = True  # fmt: skip  # noqa: E501
    trust_remote_code: Annotated[bool, Field(description="Allow code from the hub to run.")] = False

    @model_validator(mode="after")
    def _consistent(self):
        if (self.kl is None) == (self.beta is None):
            raise ValueError("give exactly one of `kl` (nats per sequence) and `beta`")
        procedure = parse_procedure(self.procedure)
        against = parse_procedure(self.against or self.procedure)
        softened = [p for p in (procedure, against) if not isinstance(p, RankProcedure)]
        if softened:
            raise ValueError(
                f"`{softened[0].spec}` reads calibrated rewards, of which unbiased estimates from "
                "samples are not known; `infalign design` takes it, a run does not. Use a "
                "procedure that keeps by rank"
            )
        if self.transform != "optimal":
            shared = self.calibration.calibrator not in ("auto", "ecdf")
            if shared and not parse_transform(self.transform).bounded:
                raise ValueError(
                    f"`transform` {self.transform} is infinite at the ends of [0, 1], and "
                    f"`calibration.calibrator` {self.calibration.calibrator} averages over "
                    "quantiles up to them; use ecdf, or a bounded transform"
                )
        needed = max(procedure.draws, against.draws)
        if self.evaluate.samples < needed:
            raise ValueError(
                f"`evaluate.samples` is {self.evaluate.samples}, fewer than the {needed} that "
                f"{self.procedure} draws; raise it, or use a smaller n"
            )
        if self.sampling.top_p < 1:
            raise ValueError(
                f"`sampling.top_p` is {self.sampling.top_p:g}, but training's KL is that of whole "
                "distributions; train with 1, and compare policies with "
                "`infalign evaluate --policy … --top-p`"
            )
        if self.train.batch_size % self.train.group:
            raise ValueError(
                f"`train.batch_size` ({self.train.batch_size}) must be a multiple of `train.group` "
                f"({self.train.group})"
            )
        online = set(self.methods) & set(get_args(OnlineMethod))
        if online and not (self.train.steps or self.train.warm_start):
            raise ValueError("`train.steps` and `train.warm_start` are both 0: nothing is trained")
        for method in self.methods:
            if method in WHOLE_GROUPS and self.train.group <= procedure.draws:
                raise ValueError(
                    f"`train.group` is {self.train.group}, but {method} needs more responses per "
                    f"prompt than the {procedure.draws} that {self.procedure} draws"
                )
        if not (self.prompts.file or self.prompts.dataset):
            raise ValueError("`prompts` needs a `file` or a `dataset`")
        return self

    @property
    def methods(self) -> tuple[Method, ...]:
        """What is trained: the method, then the baselines."""
        return tuple(dict.fromkeys((self.train.method, *self.train.baselines)))

    @property
    def test_prompts(self) -> Prompts:
        """Where the held-out prompts come from, with the source filled in."""
        own = self.evaluate.prompts
        if own.file or own.dataset:
            return own
        source = self.prompts.model_dump(include={"file", "dataset", "config", "column"})
        return own.model_copy(update=source)


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> Config:
    """The configuration in a YAML file, with `section.key=value` overrides applied.

    Raises ConfigError for a file that cannot be read, an unknown key (naming the nearest known
    one) or a value out of range.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"Configuration file {path} does not exist.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold `key: value` lines; got {type(data).__name__}.")
    for override in overrides:
        _apply(data, override)
    return parse_config(data)


def parse_config(data: dict) -> Config:
    """The configuration that `data` states; ConfigError names each key that is wrong."""
    return read_section(Config, data)


def read_section(kind: type[SectionType], values: dict) -> SectionType:
    """A part of the configuration from its values; ConfigError names each that is wrong."""
    try:
        return kind.model_validate(values)
    except pydantic.ValidationError as error:
        raise ConfigError("\n".join(_explain(e) for e in error.errors())) from None


def _apply(data: dict, override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"An override must read `section.key=value`; got {override!r}.")
    *sections, name = key.split(".")
    for section in sections:
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            raise ConfigError(f"`{section}` in {override!r} is a value, not a section.")
    data[name] = yaml.safe_load(value)


def _explain(error) -> str:
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        known = _known_keys(error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"Did you mean `{near[0]}`?" if near else f"Known keys: {', '.join(sorted(known))}."
        return f"Unknown key `{where}` in the configuration. {hint}"
    if error["type"] == "missing":
        return f"The configuration needs `{where}`."
    message = error["msg"].removeprefix("Value error, ")
    if not where:
        return f"The configuration is not consistent: {message}."
    return f"`{where}` in the configuration: {message}; got {error['input']!r}."


def _known_keys(location) -> list[str]:
    section = Config
    for name in location:
        section = section.model_fields[name].annotation
    return list(section.model_fields)
