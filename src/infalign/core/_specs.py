"""Procedures and transforms in one word, as configurations and the command line give them."""

from infalign.errors import ArgumentError

from ._procedures import (
    AbstractProcedure,
    BestOfN,
    BestOfPoisson,
    Mixture,
    OrderStatistic,
    Sampling,
    WorstOfN,
)
from ._soft_procedures import Rewind, SoftBestOfN
from ._transforms import AbstractTransform, Exponential, Identity, Log, Power, Probit

PROCEDURES = {
    "sampling": (Sampling,),
    "best-of-n": (BestOfN, int),
    "worst-of-n": (WorstOfN, int),
    "order-statistic": (OrderStatistic, int, int),
    "best-of-poisson": (BestOfPoisson, float),
    "soft-best-of-n": (SoftBestOfN, int, float),
    "rewind": (Rewind, float, int),
}
"""Each procedure's name, class, and how its arguments are read."""

PROCEDURE_FORMS = (
    "sampling, best-of-n:N, worst-of-n:N, order-statistic:N:K, best-of-poisson:MU, "
    "soft-best-of-n:N:TEMPERATURE, rewind:THRESHOLD:MAX_TRIES or mixture:W*SPEC+W*SPEC"
)

TRANSFORMS = {
    "identity": (Identity,),
    "log": (Log,),
    "probit": (Probit,),
    "exponential": (Exponential, float),
    "power": (Power, float),
}

TRANSFORM_FORMS = "identity, log, probit, exponential:T or power:A"


def parse_procedure(text: str) -> AbstractProcedure:
    """The procedure named by `text`, such as `sampling`, `best-of-n:4` or `rewind:0.9:8`.

    Raises ValueError for an unknown name or an argument out of range.

    >>> parse_procedure("best-of-n:4")
    BestOfN(n=4)
    >>> parse_procedure("mixture:0.5*best-of-n:8+0.5*sampling").draws
    8
    """
    if text.startswith("mixture:"):
        parts = [part.partition("*") for part in text.removeprefix("mixture:").split("+")]
        try:
            weights = tuple(float(weight) for weight, _, _ in parts)
        except ValueError:
            raise _unknown("procedure", PROCEDURE_FORMS, text) from None
        return Mixture(tuple(parse_procedure(spec) for _, _, spec in parts), weights)
    return _parse("procedure", PROCEDURES, PROCEDURE_FORMS, text)


def parse_transform(text: str) -> AbstractTransform:
    """The transform named by `text`: `identity`, `log`, `probit`, `exponential:T` or `power:A`.

    >>> parse_transform("exponential:10")
    Exponential(t=10.0)
    """
    return _parse("transform", TRANSFORMS, TRANSFORM_FORMS, text)


def _parse(kind, table, forms, text):
    name, *arguments = text.split(":")
    build, *readers = table.get(name, (None,))
    try:
        values = [read(value) for read, value in zip(readers, arguments, strict=True)]
    except ValueError:
        build = None
    if build is None:
        raise _unknown(kind, forms, text)
    return build(*values)


def _unknown(kind, forms, text):
    return ArgumentError(kind, f"must be {forms}; got {text!r}.")
