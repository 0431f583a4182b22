"""The schema: every key with its type, default and meaning.

The string under a key is its help. Values that a table lists, such as methods and procedures, are
read from that table, in validation and in help.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    model_validator,
)

from infalign._check import nearest, short
from infalign._look import Shown
from infalign.core import (
    PROCEDURES,
    AbstractProcedure,
    RankProcedure,
    parse_transform,
    transform_forms,
)
from infalign.methods import METHODS, Offline, OnPolicy
from infalign.models.precision import Dtype

__all__ = [
    "Calibration",
    "Config",
    "Evaluation",
    "EvaluationPrompts",
    "Listed",
    "Prompts",
    "SamplingSettings",
    "Section",
    "Training",
    "TrainingPrompts",
]


class Section(BaseModel):
    """A part of the configuration. Unknown keys are errors, and values cannot be changed after
    reading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


@dataclass(frozen=True)
class Listed(Shown):
    """Marks a key whose values a table lists; help reads the table when it is shown."""

    lines: Callable[[], list[str]]


class Prompts(Section):
    """Where prompts come from: a file, a bundled set, or a dataset on the Hub."""

    file: str | None = None
    """JSON Lines, JSON, CSV, TSV (each also .gz), Parquet, Arrow or a folder of `save_to_disk`;
    looked for beside the configuration first. Or bundled:helpful, bundled:harmless."""

    dataset: str | None = None
    """Hub id of a dataset, instead of a file."""

    config: str | None = None
    """Configuration or folder of the dataset."""

    split: str = "train"
    """Split to use; rows without a split belong to every split."""

    limit: PositiveInt | None = None
    """Use only the first N prompts."""

    column: str | None = None
    """Column that holds the prompt: a text, messages, or the chosen response of a pair. Default:
    prompt, or the one column with another usual name, such as question or messages."""

    id_column: str = "prompt_id"
    """Column that holds the ids. Without one, ids follow from the prompts' text."""

    system: str | None = None
    """System message to put before every prompt."""

    system_column: str | None = None
    """Column that holds system messages. Default: system, system_prompt or system_message, if there
    is one; "" uses none."""

    @model_validator(mode="after")
    def _one_source(self):
        if self.file and self.dataset:
            raise ValueError("give either `file` or `dataset`, not both")
        if self.system is not None and self.system_column:
            raise ValueError("give either `system` or `system_column`, not both")
        return self


SOURCE = ("file", "dataset", "config", "column", "id_column", "system", "system_column")
"""What the held-out prompts take over from the training prompts."""


class TrainingPrompts(Prompts):
    """Training prompts."""

    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the prompts that is held out for evaluation if the source has no rows of the split
    of `evaluate.prompts`."""


class SamplingSettings(Section):
    """How responses are sampled in calibration, training and evaluation."""

    temperature: PositiveFloat = 1.0
    """Softmax temperature."""

    top_p: Annotated[PositiveFloat, Field(le=1)] = 1.0
    """Nucleus-sampling threshold (top-p). Evaluation only; training requires 1."""

    max_new_tokens: PositiveInt = 128
    """Maximum length of a response, in tokens."""

    batch_size: PositiveInt = 256
    """Responses generated per batch."""

    strip: bool = False
    """Remove white space at both ends of responses, before rewards, judges and answers read them.
    Prompts keep theirs."""

    answer: Literal["whole", "after-thinking"] = "whole"
    """What rewards, judges and answers read of a response. whole: all of it. after-thinking: the
    part after the thought, for models that think in <think>…</think> first; not for training."""

    ask_again: Annotated[int, Field(ge=0)] = 0
    """Further draws, with other seeds, for a response that has no answer, such as a thought that
    was cut off. With 0, such a response is an error. With more, estimates are for the policy under
    the condition that it answers, and the KL is not measured."""


class Calibration(Section):
    """The reference samples that turn rewards into quantiles."""

    samples: Annotated[PositiveInt, Field(ge=2)] = 64
    """Reference samples per prompt, K."""

    store: str | None = None
    """Folder of a calibration store to use, such as that of another run, instead of drawing
    samples. It must fit the model, the sampling settings, the reward and the prompts, and is not
    changed."""

    extend: bool = False
    """Draw the samples that `store` lacks, and write them into the run folder. False: missing
    samples are an error."""

    calibrator: Literal["auto", "ecdf", "tail", "pooled", "pooled-ranks"] = "auto"
    """How samples become quantiles. ecdf: the rank among the prompt's own samples. tail: ecdf with
    a Pareto tail beyond the samples. pooled: the shape of the reward
    distribution is learned from all prompts. pooled-ranks: pooled, applied to ranks among the
    samples of all prompts. auto: ecdf, unless pooled or pooled-ranks predicts held-out samples
    significantly better."""


def _known_method(name: str) -> str:
    if name not in METHODS:
        raise ValueError(f"must be one of {', '.join(METHODS)}")
    return name


def _methods() -> list[str]:
    on_policy = [m for m in METHODS.values() if isinstance(m, OnPolicy)]
    offline = [m for m in METHODS.values() if isinstance(m, Offline)]
    return [
        "On policy, with TRL's trainers; each maximizes (minus β KL):",
        *(f"  {m.name}: {m.summary}" for m in on_policy),
        "Offline, on the calibration samples alone; each minimizes:",
        *(f"  {m.name}: {m.summary}" for m in offline),
    ]


def _procedure_forms() -> list[str]:
    forms = [e.form for e in PROCEDURES.values() if issubclass(e.kind, RankProcedure) and e.form]
    return [f"{', '.join(forms)}."]


def _transform_forms() -> list[str]:
    return [f"optimal, {transform_forms()}."]


MethodName = Annotated[str, AfterValidator(_known_method)]

OBJECTIVE, GOLD = "objective", "gold:"
"""Values of `train.select`; the name of a gold reward follows the second."""


def _known_choice(choice: str) -> str:
    if choice != OBJECTIVE and not (choice.startswith(GOLD) and choice.removeprefix(GOLD)):
        raise ValueError("must be objective or gold:NAME, the name of a reward in `evaluate.gold`")
    return choice


class Training(Section):
    """How the policy is trained."""

    method: Annotated[MethodName, Listed(_methods)] = "rloo"
    """Training method."""

    baselines: tuple[MethodName, ...] = ("rlhf",)
    """Methods to compare with, trained to the same KL."""

    warm_start: Annotated[int, Field(ge=0)] = 1
    """Passes over the calibration samples before the first on-policy step."""

    warm_start_loss: Literal["likelihood", "regression"] = "likelihood"
    """Loss of the warm start: that of the offline method with this name. Try both."""

    warm_start_learning_rate: PositiveFloat = 2e-5
    """AdamW learning rate for all passes over the calibration samples."""

    warm_start_batch_size: PositiveInt = 64
    """Samples per step in all passes over the calibration samples."""

    passes: PositiveInt = 4
    """Passes of an offline method over the calibration samples."""

    steps: Annotated[int, Field(ge=0)] = 500
    """On-policy steps."""

    learning_rate: PositiveFloat = 1e-5
    """AdamW learning rate for on-policy steps."""

    batch_size: PositiveInt = 256
    """Responses per on-policy step."""

    group: Annotated[PositiveInt, Field(ge=2)] = 8
    """Responses per prompt in an on-policy step."""

    lora: Annotated[int, Field(ge=0)] = 0
    """Rank of LoRA adapters; 0 trains all weights."""

    save_steps: PositiveInt = 50
    """Steps between checkpoints."""

    select: Annotated[str, AfterValidator(_known_choice)] = "objective"
    """How the best checkpoint is chosen, on the validation prompts. objective: by the objective of
    the method. gold:NAME: by the mean of the held-out reward `evaluate.gold.NAME` over the
    responses that `procedure` selects, which falls when the policy exploits `reward`. Offline
    methods make no checkpoints to choose from."""

    validation: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Share of the training prompts that is held out, for KL targeting and checkpoint selection.
    With 0, KL targeting uses the training prompts, where the KL is larger than on new prompts. A
    share that rounds to no prompt is refused."""

    kl_responses: Annotated[PositiveInt, Field(ge=32)] | None = None
    """Responses, over all prompts, on which KL targeting measures each KL. Default: 1024. Fewer
    take less time on a slow model, and the KL is less certain; `landing.json` has its error."""

    seed: Annotated[int, Field(ge=0)] | None = None
    """Random seed of the training and of the samples of the trained policies. Default: `seed`.
    Another seed repeats a training with the same calibration and the same reference samples."""

    report_to: str | tuple[str, ...] | None = None
    """Experiment trackers that show training while it runs: tensorboard, trackio, wandb or another
    that TRL knows, or a list of them. `train/METHOD/…/metrics.jsonl` is always written."""

    trl: dict[str, Any] = {}
    """Further options of TRL's RLOOConfig (GRPOConfig for grpo), under TRL's names."""

    @property
    def selects(self) -> bool:
        """Whether a training makes checkpoints before its end, which validation prompts compare."""
        return self.validation > 0 and self.steps > self.save_steps

    @property
    def validation_group(self) -> int:
        """Responses per validation prompt on which checkpoints are compared."""
        own = self.trl.get("num_generations_eval")
        return own if isinstance(own, int) and own > 0 else self.group

    @property
    def gold(self) -> str | None:
        """The name of the gold reward that chooses the checkpoint; None for the objective."""
        return None if self.select == OBJECTIVE else self.select.removeprefix(GOLD)

    def trained_prompts(self, prompts: int) -> int:
        """Number of the first `prompts` prompts that are trained on; the rest are held out."""
        return prompts - round(prompts * self.validation)


class EvaluationPrompts(Prompts):
    """Held-out prompts. Default source: that of `prompts`."""

    split: str = "test"
    """Split to use; rows without a split belong to every split."""


class Evaluation(Section):
    """The comparison on held-out prompts."""

    prompts: EvaluationPrompts = EvaluationPrompts()
    """Held-out prompts. Default source: that of `prompts`."""

    samples: PositiveInt = 32
    """Responses per prompt and policy."""

    procedures: tuple[str, ...] = ()
    """Procedures to compare under, in addition to plain sampling and `procedure`. majority-vote:N
    is allowed."""

    policies: dict[str, str] = {}
    """Other policies to compare, as a map from name to folder or hub id."""

    gold: dict[str, str] = {}
    """Held-out rewards that judge the selected responses and reveal reward hacking, as a map from
    name to reward."""

    answers: str = "numeric"
    """How majority-vote:N extracts the answer of a response: numeric, math (expressions, compared
    by math-verify) or python:package.module:function."""

    judge: str | None = None
    """Judge that compares selected responses pairwise, in both orders: http(s)://HOST/v1#MODEL,
    python:package.module:function or reward:REWARD."""

    judge_pairs: PositiveInt = 1
    """Pairs per prompt and policy that the judge compares."""

    judge_max_new_tokens: PositiveInt = 256
    """Maximum length of a reply of a judge on a server, in tokens; more for one that thinks."""

    judge_unreadable: Literal["error", "missing"] = "error"
    """Result of two unreadable replies of a judge on a server. error: the evaluation ends. missing:
    the pair has no verdict; such pairs are left out and counted."""

    kl_samples: NonNegativeInt = 8
    """Maximum number of responses per prompt used to measure the KL. 0: the KL is not measured,
    for example between models with different tokens."""


class Config(Section):
    """Everything a run needs; `infalign run CONFIG.yaml` reads it."""

    model: str
    """Reference policy: folder or hub id of a causal LM, or bundled:language-model. `infalign
    calibrate` also takes http(s)://HOST/v1#MODEL and vllm:PATH."""

    reward: str
    """Folder or hub id of a sequence classifier, python:package.module:function or
    path/to/file.py:function (looked for beside the configuration first), http(s)://HOST/PATH of a
    reward server, or bundled:helpful, bundled:harmless."""

    prompts: TrainingPrompts
    """Training prompts."""

    procedure: Annotated[str, Listed(_procedure_forms)] = "best-of-n:4"
    """Procedure that will decode the policy; it must select by rank:"""

    against: str | None = None
    """How the reference policy is decoded in comparisons. Default: `procedure`."""

    kl: Annotated[float, Field(ge=1e-6, le=100)] | None = None
    """KL budget, in nats per sequence, from 1e-6, below which samples cannot measure it, to 100.
    Set either `kl` or `beta`."""

    beta: PositiveFloat | None = None
    """KL strength. Theory then gives the KL."""

    transform: Annotated[str, Listed(_transform_forms)] = "optimal"
    """Transform of the calibrated reward:"""

    sampling: SamplingSettings = SamplingSettings()
    calibration: Calibration = Calibration()
    train: Training = Training()
    evaluate: Evaluation = Evaluation()

    engine: Literal["local", "ray"] = "local"
    """Where calibration samples are drawn and scored. local: in this process. ray: on the Ray
    cluster at RAY_ADDRESS; if it is not set, on a cluster started on this machine."""

    dtype: Dtype = "auto"
    """Precision in which policies and rewards compute; trained weights are float32. auto: bfloat16
    for models with layers at least 512 wide, and for training, if the processor multiplies bfloat16
    natively (recent GPUs; CPUs with AMX or AVX-512 BF16); else float32. The KL is always computed
    in float32."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed of the whole run."""

    evidence: bool = True
    """False marks a trial run, whose numbers are not evidence."""

    trust_remote_code: bool = False
    """Allow code from the Hub to run."""

    @model_validator(mode="after")
    def _one_budget(self):
        if (self.kl is None) == (self.beta is None):
            raise ValueError("give exactly one of `kl` (nats per sequence) and `beta`")
        return self

    @model_validator(mode="after")
    def _procedures_select_by_rank(self):
        for name, procedure in self._procedures().items():
            if not isinstance(procedure, RankProcedure):
                raise ValueError(
                    f"`{name}` {procedure.spec} reads calibrated rewards, and no unbiased estimate "
                    "of its win rate from samples is known. Use a procedure that selects by rank; "
                    "`infalign design` takes this one, a run does not"
                )
        return self

    @model_validator(mode="after")
    def _transform_is_finite(self):
        if self.transform == "optimal":
            return self
        bounded = parse_transform(self.transform, "optimal").bounded
        if not bounded and self.calibration.calibrator not in ("auto", "ecdf"):
            raise ValueError(
                f"`transform` {self.transform} is infinite at the ends of [0, 1], and "
                f"`calibration.calibrator` {self.calibration.calibrator} averages over "
                "quantiles up to them; use ecdf, or a bounded transform"
            )
        return self

    @model_validator(mode="after")
    def _enough_evaluation_samples(self):
        procedure = max(self._procedures().values(), key=lambda p: p.draws)
        if self.evaluate.samples < procedure.draws:
            raise ValueError(
                f"`evaluate.samples` is {self.evaluate.samples}, fewer than the {procedure.draws} "
                f"that {procedure.spec} draws; raise it, or use a smaller n"
            )
        return self

    @model_validator(mode="after")
    def _whole_distributions(self):
        if self.sampling.top_p < 1:
            raise ValueError(
                f"`sampling.top_p` is {self.sampling.top_p:g}, but training's KL is that of whole "
                "distributions; train with 1, and compare policies with "
                "`infalign evaluate --policy … --top-p`"
            )
        return self

    @model_validator(mode="after")
    def _whole_responses(self):
        if self.sampling.answer != "whole" and "://" not in self.model:
            raise ValueError(
                f"`sampling.answer` is {self.sampling.answer}, but training rewards whole "
                "responses; train with whole, and compare policies with "
                "`infalign evaluate --policy … --answer after-thinking`"
            )
        return self

    @model_validator(mode="after")
    def _whole_groups(self):
        group, draws = self.train.group, self._procedures()["procedure"].draws
        if self.train.batch_size % group:
            raise ValueError(
                f"`train.batch_size` ({self.train.batch_size}) must be a multiple of `train.group` "
                f"({group})"
            )
        for method in self._on_policy():
            if method.whole_groups and group <= draws:
                raise ValueError(
                    f"`train.group` is {group}, but {method.name} needs more responses per prompt "
                    f"than the {draws} that {self.procedure} draws"
                )
        return self

    @model_validator(mode="after")
    def _gold_can_choose(self):
        train, name = self.train, self.train.gold
        if name is None:
            return self
        if name not in self.evaluate.gold:
            known = ", ".join(self.evaluate.gold) or "no rewards"
            raise ValueError(
                f"`train.select` names {short(name)}, but `evaluate.gold` has {known}; "
                f"name one of its rewards, or add it there.{nearest(name, self.evaluate.gold)}"
            )
        if self.evaluate.gold[name] == self.reward:
            raise ValueError(
                f"`train.select` is {train.select}, which is the `reward` that is trained on: it "
                "cannot show that this reward is exploited. Name another one"
            )
        if not (train.steps and self._on_policy()):
            return self
        if not train.selects:
            raise ValueError(
                f"`train.select` is {train.select}, but there is nothing to choose from: "
                f"`train.steps` ({train.steps}) must exceed `train.save_steps` "
                f"({train.save_steps}), and `train.validation` ({train.validation:g}) must be "
                "positive"
            )
        draws = self._procedures()["procedure"].draws
        if train.validation_group < draws:
            raise ValueError(
                f"`train.select` is {train.select}, which needs the {draws} responses per prompt "
                f"that {self.procedure} draws, and validation draws {train.validation_group}. "
                "Raise `train.group`, or `train.trl.num_generations_eval` alone"
            )
        return self

    @model_validator(mode="after")
    def _only_a_store_is_extended(self):
        if self.calibration.extend and self.calibration.store is None:
            raise ValueError("`calibration.extend` extends `calibration.store`, which is not set")
        return self

    @model_validator(mode="after")
    def _something_is_trained(self):
        if self._on_policy() and not (self.train.steps or self.train.warm_start):
            raise ValueError("`train.steps` and `train.warm_start` are both 0: nothing is trained")
        return self

    @model_validator(mode="after")
    def _prompts_have_a_source(self):
        if not (self.prompts.file or self.prompts.dataset):
            raise ValueError("`prompts` needs a `file` or a `dataset`")
        return self

    def _procedures(self) -> dict[str, AbstractProcedure]:
        """`procedure` and, if it is given, `against`."""
        specs = {"procedure": self.procedure, "against": self.against or self.procedure}
        return {name: PROCEDURES.parse(spec, argument=name) for name, spec in specs.items()}

    def _on_policy(self) -> list[OnPolicy]:
        methods = (METHODS[name] for name in self.methods)
        return [method for method in methods if isinstance(method, OnPolicy)]

    _folder: Path | None = PrivateAttr(default=None)

    @property
    def folder(self) -> Path | None:
        """Folder of the configuration's file, where Python rewards are looked for first."""
        return self._folder

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods to train: `train.method`, then the baselines."""
        return tuple(dict.fromkeys((self.train.method, *self.train.baselines)))

    @property
    def training_seed(self) -> int:
        """The seed of everything that depends on the training: `train.seed`, or `seed`."""
        return self.seed if self.train.seed is None else self.train.seed

    @property
    def test_prompts(self) -> Prompts:
        """Source of the held-out prompts; each missing key is taken from `prompts`."""
        own = self.evaluate.prompts
        taken = ("system",) if own.file or own.dataset else SOURCE
        values = {k: getattr(self.prompts, k) for k in taken if k not in own.model_fields_set}
        return own.model_copy(update=values)
