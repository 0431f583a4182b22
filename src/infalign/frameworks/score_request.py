"""A request to the reward server: what it may hold, and the responses that it asks about.

Every text and label is checked before it shares a batch with those of other clients.
"""

import json
from typing import Annotated, Any

import pydantic
from pydantic import AfterValidator, FiniteFloat, Strict, StrictInt

from infalign import _check
from infalign.errors import DataError
from infalign.shaping.signature import PASSED

from .prompt_text import PolicyText
from .scorer import Asked, Scorer, label_of

__all__ = ["Body", "UnresolvedError", "read_body", "resolved"]

SHOWN = 5
"""Problems of a request that its error names."""


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"must be Unicode text; character {error.start} is half of a surrogate pair"
        ) from None
    return text


Text = Annotated[str, Strict(), AfterValidator(_unicode)]
Label = Text | StrictInt | Annotated[FiniteFloat, Strict()] | None


def _message(message: dict) -> dict:
    for key, needed in (("content", True), ("role", False)):
        value = message.get(key)
        if not isinstance(value, str) and (needed or key in message):
            raise ValueError(f"`{key}` must be text; got {_check.short(value)}")
        _unicode(value or "")
    return message


def _conversation(messages: list[dict]) -> list[dict]:
    if not messages:
        raise ValueError("must end with the response; it is empty")
    if not all("role" in message for message in messages[:-1]):
        raise ValueError("every message before the response must have a `role`")
    return messages


Message = Annotated[dict, AfterValidator(_message)]
Conversation = Annotated[list[Message], AfterValidator(_conversation)]


class Body(pydantic.BaseModel):
    """An OpenRLHF request, with more keys. A list under an unknown key is a column, as `columns`
    may have them."""

    model_config = pydantic.ConfigDict(extra="allow")

    query: list[Text] | None = None
    prompts: list[Text] | None = None
    labels: list[Label] | None = None
    messages: list[Conversation] | None = None
    responses: list[Text] | None = None
    columns: dict[str, list] | None = None
    plain: list[bool] | None = None

    @pydantic.model_validator(mode="after")
    def _one_entry_per_response(self):
        own = {name: getattr(self, name) for name in type(self).model_fields}
        lengths = {k: len(v) for k, v in own.items() if v is not None and k != "columns"}
        lengths |= {f"columns.{name}": len(v) for name, v in (self.columns or {}).items()}
        lengths |= {name: len(v) for name, v in self._more().items()}
        if not {"query", "messages", "responses"} & lengths.keys():
            raise ValueError("it needs `query`, `messages` or `responses`")
        if len(set(lengths.values())) > 1:
            raise ValueError(f"its lists must be of one length; got {lengths}")
        return self

    def __len__(self) -> int:
        """The number of responses."""
        return len(self.responses or self.messages or self.query or ())

    def _more(self) -> dict[str, list]:
        """Lists under other keys, each a column."""
        more = (self.model_extra or {}).items()
        return {name: value for name, value in more if isinstance(value, list)}

    def columns_of(self, i: int) -> dict[str, Any]:
        """What the request says of response `i` beside its text and its prompt."""
        more = self._more() | (self.columns or {})
        return {name: values[i] for name, values in more.items() if name not in PASSED}

    def asked(self, i: int, text: PolicyText | None) -> Asked:
        """Response `i` and its prompt; DataError if the request does not contain them."""
        key, beside = label_of(self.labels[i] if self.labels else None)
        prompt = self.prompts[i] if self.prompts else None
        by_text = key is None
        key = prompt if key is None else key
        *conversation, reply = self.messages[i] if self.messages else [{}]
        messages = tuple(conversation) or None
        plain = bool(self.plain and self.plain[i]) and len(conversation) == 1
        more = (messages, by_text, self.columns_of(i) | beside, plain)
        if self.responses:
            return Asked(key, self.responses[i], *more)
        if self.messages:
            return Asked(key, reply["content"], *more)
        if prompt is None:
            raise DataError("`query` does not say where its response begins: send `prompts` too.")
        if text is None:
            raise DataError(
                "`query` cannot be read without the policy's tokenizer, which this server does not "
                "have. Send `responses` or `messages`."
            )
        return Asked(key, text.response((self.query or [])[i], prompt), *more)


class UnresolvedError(Exception):
    """A response whose prompt or text cannot be read, with the prompt's label from the request."""

    def __init__(self, message: str, prompt_id: Any):
        super().__init__(message)
        self.prompt_id = prompt_id


def read_body(raw: bytes | bytearray) -> Body:
    """The request in these bytes; DataError for any other bytes."""
    try:
        return Body.model_validate(json.loads(raw, parse_constant=_no_constant))
    except pydantic.ValidationError as error:
        problems = [_problem(e) for e in error.errors()]
        more = len(problems) - SHOWN
        words = "; ".join(problems[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise DataError(f"The request cannot be read: {words}.") from None
    except RecursionError:
        raise DataError("The request cannot be read: its JSON is nested too deeply.") from None
    except ValueError as error:
        raise DataError(f"The request is not JSON: {_check.visible(str(error))}.") from None


def resolved(scorer: Scorer, body: Body, text: PolicyText | None) -> list[Asked]:
    """The responses of a request with their prompts; raises UnresolvedError for the first without
    one.

    - `text`: the policy's tokenizer, which extracts responses from queries.
    """
    asked: list[Asked] = []
    for i in range(len(body)):
        try:
            asked.append(scorer.resolve(body.asked(i, text)))
        except Exception as error:
            own = isinstance(error, DataError)
            problem = str(error) if own else f"{type(error).__name__}: {error}"
            label = body.labels[i] if body.labels else None
            raise UnresolvedError(f"Response {i} of {len(body)}: {problem}", label) from error
    return asked


def _no_constant(name: str):
    raise ValueError(f"{name} is not a JSON number")


def _problem(error) -> str:
    # The names of an error's union members do not help a client.
    where = ".".join(str(x) for x in error["loc"] if not _of_a_union(x))
    words = error["msg"].removeprefix("Value error, ")
    return f"`{_check.visible(where)}`: {words}" if where else words


def _of_a_union(part: Any) -> bool:
    return isinstance(part, str) and part not in Body.model_fields
