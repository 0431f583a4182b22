"""Procedures and transforms by name: text forms, descriptions in reports, families over n.

The names come from `register_procedure` and `register_transform`; nothing here lists them.
"""

from ._interface import PROCEDURES, AbstractProcedure
from ._transforms import TRANSFORMS, AbstractTransform

DECODER_WORDS = {"majority-vote": "majority of {}"}
"""Descriptions of decoders without a law on the quantile axis, with one number as their
parameter."""


def parse_procedure(procedure: str) -> AbstractProcedure:
    """Parse a procedure from its text form: `sampling`, `best-of-n:4`, `rewind:0.9:8`.

    Raises ValueError for an unknown name or an argument out of range.

    >>> parse_procedure("best-of-n:4")
    BestOfN(n=4)
    >>> parse_procedure("mixture:0.5*best-of-n:8+0.5*sampling").draws
    8
    """
    return PROCEDURES.parse(procedure)


def parse_transform(transform: str, *more: str) -> AbstractTransform:
    """Parse a transform from its text form: `identity`, `log`, `exponential:10`.

    - `more`: further forms that the caller has already tried, for the error message.

    Raises ValueError for an unknown name or an argument out of range.

    >>> parse_transform("exponential:10")
    Exponential(t=10.0)
    """
    return TRANSFORMS.parse(transform, *more)


def procedure_forms(*more: str) -> str:
    """The text forms of all procedures in one phrase, for help and errors.

    - `more`: further forms that the caller reads, such as `majority-vote:N`.

    >>> procedure_forms("majority-vote:N").split(", ")[:2]
    ['sampling', 'best-of-n:N']
    """
    return PROCEDURES.forms(*more)


def transform_forms(*more: str) -> str:
    """The text forms of all transforms in one phrase, for help and errors.

    - `more`: further forms that the caller reads.

    >>> transform_forms()
    'identity, log, probit, exponential:T or power:A'
    """
    return TRANSFORMS.forms(*more)


def words(procedure: AbstractProcedure | str) -> str:
    """The description in reports of a procedure, or of its text form.

    An unregistered text form, such as one in results with someone else's procedure, is returned
    unchanged.

    >>> words("worst-of-n:4"), words("sampling"), words("soft-best-of-n:4:0.1")
    ('worst-of-4', 'plain sampling', 'soft best-of-4 (0.1)')
    """
    spec = procedure if isinstance(procedure, str) else procedure.spec
    name, *arguments = spec.split(":")
    if name in DECODER_WORDS and len(arguments) == 1:
        return DECODER_WORDS[name].format(*arguments)
    return PROCEDURES.words(spec)


def families() -> list[str]:
    """Names of the procedures that reports show as curves over n.

    >>> families()
    ['best-of-n', 'worst-of-n']
    """
    return [name for name, entry in PROCEDURES.items() if entry.family]


def family(name: str, n: int) -> AbstractProcedure:
    """The member with `n` draws of one of the `families`.

    >>> family("best-of-n", 8)
    BestOfN(n=8)
    """
    if name not in families():
        raise ValueError(f"`name` must be one of {', '.join(families())}; got {name!r}.")
    return PROCEDURES[name].kind(n)  # type: ignore[call-arg]  # its one parameter, see Registry
