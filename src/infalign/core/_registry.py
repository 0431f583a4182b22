"""Registries of named classes: the procedures and transforms with a text form.

A class is registered by a decorator above `@dataclass(frozen=True)`:

    @register_procedure("best-of-n", words="best-of-{n}", family=True, example="best-of-n:4")
    @dataclass(frozen=True)
    class BestOfN(RankProcedure):
        n: int

Everything that uses procedures or transforms by name reads the entry: `parse_procedure` and the
default `spec`, the forms in help and errors, the descriptions in reports, the curves over n, the
JSON of a transform, and the explorer's choices. The fields of the dataclass are the parameters: `n:
int` is read by `int` and shown as `N`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Generic, TypeVar, get_type_hints

from infalign import _check
from infalign._look import Shown
from infalign.errors import ArgumentError

T = TypeVar("T")
C = TypeVar("C", bound=type)

READERS: dict[type, Callable[[str], Any]] = {int: int, float: float, str: str}
"""Conversion of a parameter's text to its value, by the type of the field."""

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class Unreadable(ValueError):
    """Raised by a class's `from_text` for text that does not have the right form."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a registered class."""

    name: str
    read: Callable[[str], Any]
    """The parameter's value from text; ValueError for invalid text."""

    @property
    def placeholder(self) -> str:
        """Placeholder for the value in a form: `N`."""
        return self.name.upper()


@dataclass(frozen=True)
class Entry(Shown, Generic[T]):
    """A registered class."""

    name: str
    """`best-of-n`."""

    kind: type[T]
    """The class."""

    parameters: tuple[Parameter, ...]
    """Empty for a class that reads its own text by `from_text`."""

    form: str
    """`best-of-n:N`, for help and errors; empty if the class has no text form."""

    label: str
    """`best of n`, for lists of choices."""

    template: str | None
    """`best-of-{n}`, the description in reports; None if reports show the text form."""

    family: bool
    """Whether `n` is its only parameter, so that reports can show a curve over n."""

    example: str | None
    """`best-of-n:4`; None if a class with parameters has no example."""

    @property
    def summary(self) -> str:
        """First line of the class's docstring."""
        return (self.kind.__doc__ or "").strip().partition("\n")[0]

    def read(self, arguments: str | None) -> T:
        """The instance from the text after `name:`, or None without a colon.

        Raises Unreadable if the text does not have the form, and ValueError if a value is out of
        range.
        """
        own = getattr(self.kind, "from_text", None)
        if own is not None:
            return own(arguments or "")
        texts = [] if arguments is None else arguments.split(":")
        if not self.form or len(texts) != len(self.parameters):
            raise Unreadable(self.form)
        try:
            values = [p.read(text) for p, text in zip(self.parameters, texts, strict=True)]
        except ValueError:
            raise Unreadable(self.form) from None
        return self.kind(*values)

    def spec(self, instance: T) -> str:
        """The text form of an instance, which `read` reads back."""
        values = [str(getattr(instance, p.name)).removesuffix(".0") for p in self.parameters]
        return ":".join([self.name, *values])

    def words(self, spec: str) -> str:
        """The description in reports for a text form of this class."""
        texts = spec.split(":")[1:]
        if self.template is None or len(texts) != len(self.parameters):
            return spec
        names = [p.name for p in self.parameters]
        return self.template.format(**dict(zip(names, texts, strict=True)))


class Registry(Mapping[str, Entry[T]]):
    """The registered subclasses of one base class, by name, in the order of registration."""

    def __init__(self, noun: str, base: type[T]):
        """
        - `noun`: the noun for an entry, which errors also use as the argument's name: `procedure`.
        - `base`: the class that every entry derives from.
        """
        self.noun = noun
        self._base = base
        self._entries: dict[str, Entry[T]] = {}
        self._by_kind: dict[type, Entry[T]] = {}

    def __getitem__(self, name: str) -> Entry[T]:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def register(
        self,
        name: str,
        *,
        words: str | None = None,
        label: str | None = None,
        family: bool = False,
        example: str | None = None,
        form: str | None = None,
    ) -> Callable[[C], C]:
        """A decorator that registers a class under `name`. See `register_procedure`."""

        def enter(kind: C) -> C:
            entry = self._entry(kind, name, words, label, family, example, form)
            # A class that is defined again, as in a notebook cell, replaces its former definition.
            for known in [e.name for e in self.values() if _place(e.kind) == _place(kind)]:
                self.remove(known)
            self._entries[name] = self._by_kind[kind] = entry
            return kind

        return enter

    def remove(self, name: str) -> None:
        """Remove an entry."""
        del self._by_kind[self._entries.pop(name).kind]

    def of(self, instance: T) -> Entry[T] | None:
        """The entry of an instance's class; None if that is not registered."""
        return self._by_kind.get(type(instance))

    def forms(self, *more: str) -> str:
        """All text forms in one phrase: `sampling, best-of-n:N, … or rewind:THRESHOLD:MAX_TRIES`.

        - `more`: further forms that the caller reads.
        """
        *others, last = [*(e.form for e in self.values() if e.form), *more]
        return f"{', '.join(others)} or {last}" if others else last

    def parse(self, text: str, *more: str, argument: str | None = None) -> T:
        """The instance that `text` names.

        - `more`: further forms that the caller has already tried, for the error message.
        - `argument`: the argument that the error names; default: the registry's noun.

        Raises ValueError for an unknown name or form, and for a value out of range.
        """
        if isinstance(text, str):
            name, colon, arguments = text.partition(":")
            if name in self._entries:
                try:
                    return self._entries[name].read(arguments if colon else None)
                except Unreadable:
                    pass
        raise ArgumentError(
            argument or self.noun,
            f"must be {self.forms(*more)}; got {_check.short(text)}.{self._nearest(text, more)}",
        )

    def _nearest(self, text: object, more: tuple[str, ...]) -> str:
        """The form most like a text; empty where the name is right and the rest is not."""
        forms = {form.partition(":")[0]: form for form in (*(e.form for e in self.values()), *more)}
        name = str(text).partition(":")[0]
        hint = "" if name in forms else _check.nearest(name, filter(None, forms))
        for known, form in forms.items():
            if hint == f" Did you mean {known}?":
                return f" Did you mean {form}?"
        return ""

    def spec(self, instance: T) -> str:
        """The text form of an instance; its `repr` if its class is not registered."""
        entry = self.of(instance)
        return repr(instance) if entry is None else entry.spec(instance)

    def words(self, spec: str) -> str:
        """The description in reports for a text form; the text itself if no entry matches."""
        entry = self._entries.get(spec.partition(":")[0])
        return spec if entry is None else entry.words(spec)

    def _entry(
        self,
        kind: type,
        name: str,
        words: str | None,
        label: str | None,
        family: bool,
        example: str | None,
        form: str | None,
    ) -> Entry[T]:
        decorator = f"register_{self.noun}"
        if not (isinstance(kind, type) and issubclass(kind, self._base)):
            raise ValueError(
                f"`{decorator}` must decorate a subclass of {self._base.__name__}; got {kind!r}."
            )
        if not (isinstance(name, str) and NAME.fullmatch(name)):
            raise ValueError(
                f"`name` must be lower-case words joined by hyphens, such as best-of-n; got "
                f"{name!r}."
            )
        _check.truth("family", family)
        given = {"words": words, "label": label, "example": example, "form": form}
        for option, value in given.items():
            if value is not None:
                _check.text(option, value)
        for known in self.values():
            again = _place(known.kind) == _place(kind)
            if (known.name == name or known.kind.__name__ == kind.__name__) and not again:
                raise ValueError(
                    f"`name` and the class's name must be new; got {name!r} for {kind.__name__}, "
                    f"but {known.name!r} is {'.'.join(_place(known.kind))}."
                )
        parameters = () if form == "" else _parameters(kind)
        names = [p.name for p in parameters]
        if form is None:
            form = ":".join([name, *(p.placeholder for p in parameters)])
        if words is not None:
            try:
                words.format(**dict.fromkeys(names, "1"))
            except (KeyError, IndexError, ValueError):
                raise ValueError(
                    f"`words` may hold {', '.join(f'{{{n}}}' for n in names) or 'no fields'}; got "
                    f"{words!r}."
                ) from None
        if family and [(p.name, p.read) for p in parameters] != [("n", int)]:
            raise ValueError(
                f"`family` needs a class with one parameter, `n: int`; {kind.__name__} has "
                f"{', '.join(names) or 'none'}."
            )
        if example is None and not parameters and form == name:
            example = name
        label = label or name.replace("-", " ")
        return Entry(name, kind, parameters, form, label, words, family, example)


def _place(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__qualname__


def _parameters(kind: type) -> tuple[Parameter, ...]:
    """The fields that the constructor takes, in order."""
    if hasattr(kind, "from_text") or not is_dataclass(kind):
        return ()
    types = get_type_hints(kind)
    names = [field.name for field in fields(kind) if field.init]
    unread = [name for name in names if types[name] not in READERS]
    if unread:
        raise ValueError(
            f"`{unread[0]}` of {kind.__name__} must be an int, a float or a str to be read from "
            "text. Give the class a classmethod `from_text` and register it with its `form`, or "
            'register it with form="".'
        )
    return tuple(Parameter(name, READERS[types[name]]) for name in names)
