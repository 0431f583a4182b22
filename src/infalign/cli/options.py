"""Options that several commands have."""

from enum import StrEnum
from typing import Annotated

import typer

from infalign.models.precision import WIDE


class Answer(StrEnum):
    """What of a response is its answer."""

    whole = "whole"
    after_thinking = "after-thinking"


class Dtype(StrEnum):
    """The precision of models."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


SOURCE = (
    "JSON Lines, JSON, CSV, TSV, Parquet or Arrow file, or a folder of save_to_disk; "
    "bundled:helpful or bundled:harmless."
)
COLUMN = "Column of --prompts that holds the prompt. Default: the one with a usual name."
LIMIT = "Use only the first N prompts."
TEMPERATURE = "Softmax temperature."
TOP_P = "Nucleus-sampling threshold (top-p)."
MAX_NEW_TOKENS = "Maximum length of a response, in tokens."
STRIP = "Remove white space at both ends of responses."
ANSWER = (
    "What rewards and answers read of a response: all of it, or the part after the thought of a "
    "model that thinks in <think>…</think> first."
)
ASK_AGAIN = (
    "Further draws, with other seeds, for a response that has no answer, such as a thought that "
    "was cut off. Default: it is an error."
)
DTYPE = (
    "Precision of policies and rewards. auto: bfloat16 for models with layers at least "
    f"{WIDE} wide if the processor multiplies bfloat16, else float32."
)
SEED = "Random seed."
REMOTE_CODE = "Allow code from the Hub to run."

Column = Annotated[str | None, typer.Option(help=COLUMN)]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help=LIMIT)]
Temperature = Annotated[float, typer.Option(help=TEMPERATURE)]
TopP = Annotated[float, typer.Option(min=0, max=1, help=TOP_P)]
MaxNewTokens = Annotated[int, typer.Option(min=1, help=MAX_NEW_TOKENS)]
Strip = Annotated[bool, typer.Option("--strip", help=STRIP)]
ReadAnswer = Annotated[Answer, typer.Option(help=ANSWER)]
AskAgain = Annotated[int, typer.Option(min=0, help=ASK_AGAIN)]
Precision = Annotated[Dtype, typer.Option(help=DTYPE)]
Seed = Annotated[int, typer.Option(min=0, help=SEED)]
RemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help=REMOTE_CODE)]

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Only check everything, measure the models briefly and print what each stage costs.",
    ),
]
Measure = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", min=0, help="Time that --dry-run measures for; 0 measures nothing."
    ),
]
