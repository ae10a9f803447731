"""What a verb takes: a table of parameters, checked before the verb runs.

Each verb lists its parameters beside its route (`api.py`). They come from the query string or from the fields of the
body; one that the verb does not know is refused, so that nobody believes in an option that does not exist.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker.keys import NAME_PATTERN, NAME_RULE, is_name
from web.errors import ApiError, bad_request, printable
from web.input.body import RawJson
from web.input.codec import BY_REDIS, Limits, encode_message, encode_messages, validate_message
from web.input.raw_json import read_scalar, read_strings
from web.request import Request

MAX_NUMBER_CHARACTERS = 40  # the longest that a program writes for a number has 25


@dataclass(frozen=True)
class Parameter:
    """One parameter: `parse` turns what was sent into what the verb gets, or raises an ApiError."""

    name: str
    default: Any = None
    required: bool = False
    in_query: bool = True  # False: it is accepted in the body alone
    in_body: bool = True  # False: it is accepted in the query string alone

    def parse(self, value: str) -> Any:
        raise NotImplementedError

    def describe(self) -> str:
        """Return type and bounds, as the reference has them."""
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        """Return type and bounds, as JSON Schema."""
        raise NotImplementedError

    def error(self, message: str, error: str = "bad_parameter") -> ApiError:
        return bad_request(message, error, parameter=self.name)

    def from_json(self, text: RawJson) -> Any:
        """Return what `parse` takes for a JSON value: a number as it is written, true as 1; None for null."""
        if text.startswith((b"[", b"{")):
            raise self.error(f"{self.name} must be text or a number.")
        return read_scalar(text)


@dataclass(frozen=True)
class Number(Parameter):
    """A number from `minimum` to `maximum`."""

    minimum: float = 0
    maximum: float = math.inf
    unit: str = ""

    def parse(self, text: str) -> float:
        try:
            number = (
                float(text) if len(text) <= MAX_NUMBER_CHARACTERS and text.isascii() and "_" not in text else math.nan
            )
        except ValueError:
            number = math.nan
        if not self.minimum <= number <= self.maximum:
            raise self.error(f"{self.name} must be a number from {self.minimum:.12g} to {self.maximum:.12g}.")
        return number

    def describe(self) -> str:
        return f"number, {self.minimum:.12g} to {self.maximum:.12g} {self.unit}".strip()

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.minimum, "maximum": self.maximum}


NO_FRACTION = re.compile(rb"\.0+\Z")  # some programs write any JSON number as 5.0


@dataclass(frozen=True)
class Integer(Parameter):
    """A whole number from `minimum` to `maximum`."""

    minimum: int = 0
    maximum: int = 10**12
    unit: str = ""

    def from_json(self, text: RawJson) -> Any:
        return super().from_json(RawJson(NO_FRACTION.sub(b"", text)))

    def parse(self, text: str) -> int:
        digits = text.isascii() and text.isdigit() and len(text) <= 15
        if not digits or not self.minimum <= int(text) <= self.maximum:
            raise self.error(f"{self.name} must be a whole number from {self.minimum} to {self.maximum}.")
        return int(text)

    def describe(self) -> str:
        return f"integer, {self.minimum} to {self.maximum} {self.unit}".strip()

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}


@dataclass(frozen=True)
class Flag(Parameter):
    """1 or true; 0, false or absent is off."""

    default: bool = False

    def parse(self, text: str) -> bool:
        if text not in ("0", "1", "false", "true"):
            raise self.error(f"{self.name} must be 1 or 0.")
        return text in ("1", "true")

    def describe(self) -> str:
        return "1 or 0"

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Text(Parameter):
    """Any text of `minimum` to `maximum` characters; an empty one is refused where one is required."""

    minimum: int = 0
    maximum: int | None = None

    def parse(self, text: str) -> str:
        if not text and (self.required or self.minimum):
            raise self.error(f"Send {self.name}.")
        if self.maximum is not None and len(text) > self.maximum:
            raise self.error(f"{self.name} must have up to {self.maximum} characters.")
        return text

    def describe(self) -> str:
        if self.maximum is None:
            return "text"
        return f"text, {f'{self.minimum} to' if self.minimum else 'up to'} {self.maximum} characters"

    def schema(self) -> dict[str, Any]:
        bounds = {"minLength": max(self.minimum, int(self.required)), "maxLength": self.maximum}
        return {"type": "string"} | {name: bound for name, bound in bounds.items() if bound}


VISIBLE_ASCII = re.compile("[!-~]{1,255}")


@dataclass(frozen=True)
class JobName(Parameter):
    """The name of a job, which its producer has chosen."""

    def parse(self, text: str) -> str:
        if not VISIBLE_ASCII.fullmatch(text):
            raise self.error(f"{self.name} must have 1 to 255 visible ASCII characters.")
        return text

    def describe(self) -> str:
        return "1 to 255 visible ASCII characters"

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{VISIBLE_ASCII.pattern}$"}


@dataclass(frozen=True)
class Choice(Parameter):
    """One of a few words."""

    words: tuple[str, ...] = ()

    def parse(self, text: str) -> str:
        if text not in self.words:
            raise self.error(f"{self.name} can only be {' or '.join(self.words)}.")
        return text

    def describe(self) -> str:
        return " or ".join(f"`{word}`" for word in self.words)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.words)}


@dataclass(frozen=True)
class QueueName(Parameter):
    """The name of a queue."""

    def parse(self, text: str) -> str:
        if not text:
            raise self.error(f"Send {self.name}.")
        return validate_name(text)

    def describe(self) -> str:
        return "queue name"

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{NAME_PATTERN.pattern}$"}


@dataclass(frozen=True)
class TextList(Parameter):
    """A list of 1 to `maximum` texts: a JSON list, or separated by commas. A text that comes twice counts once."""

    maximum: int = 1000

    def from_json(self, text: RawJson) -> str | list[str] | None:
        if text.startswith(b'"') or text == b"null":
            return read_scalar(text)
        found = read_strings(text) if text.startswith(b"[") else None
        if found is None:
            raise self._not_a_list()
        return found

    def parse(self, value: str | list[str]) -> list[str]:
        found = value.split(",") if isinstance(value, str) else value
        if not 0 < len(found) <= self.maximum:
            raise self._not_a_list()
        return list(dict.fromkeys(found))

    def _not_a_list(self) -> ApiError:
        return self.error(f"{self.name} must be a list of 1 to {self.maximum} texts.")

    def describe(self) -> str:
        return f"list of 1 to {self.maximum} texts, or separated by commas"

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": self.maximum}


@dataclass(frozen=True)
class MessageParameter(Parameter):
    """What holds messages: it is encoded within limits, instead of parsed."""

    in_query: bool = False

    def encode(self, value: RawJson | bytes | str, limits: Limits, checkpoint: Callable[[], object]) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Message(MessageParameter):
    """A message: any JSON value, the text of a form, or the body itself."""

    def encode(self, value: RawJson | bytes | str, limits: Limits, checkpoint: Callable[[], object]) -> bytes:
        if isinstance(value, RawJson):
            return encode_message(value, limits)
        return validate_message(value.encode() if isinstance(value, str) else value, limits)

    def describe(self) -> str:
        return "message"

    def schema(self) -> dict[str, Any]:
        return {"$ref": "#/components/schemas/NewMessage"}


@dataclass(frozen=True)
class MessageList(MessageParameter):
    """A list of 1 to `maximum` messages."""

    maximum: int = 100_000  # they are pushed by one command, and nobody else is served meanwhile

    def encode(self, value: RawJson | bytes | str, limits: Limits, checkpoint: Callable[[], object]) -> list[bytes]:
        if not isinstance(value, RawJson) or not value.startswith(b"[") or value == b"[]":
            raise bad_request(f"{self.name} must be a list of at least one message.", "bad_message")
        found = encode_messages(value, limits, checkpoint)
        if len(found) > self.maximum:
            message = f"Send up to {self.maximum} messages at once, or a stream of lines (application/x-ndjson)."
            raise ApiError(413, "too_many_messages", message, limit=self.maximum)
        return found

    def describe(self) -> str:
        return f"list of 1 to {self.maximum} messages"

    def schema(self) -> dict[str, Any]:
        items = {"$ref": "#/components/schemas/NewMessage"}
        return {"type": "array", "items": items, "minItems": 1, "maxItems": self.maximum}


def parse(
    request: Request, parameters: Sequence[Parameter], fields: Mapping[str, Any], limits: Limits = BY_REDIS
) -> dict[str, Any]:
    """Return the value of each parameter, by name, from the query string and the body's fields.

    `limits` are those of messages.

    Raises:
        ApiError: one is unknown, given twice, missing or not as it must be.
    """
    known = {parameter.name: parameter for parameter in parameters}
    for name in (*request.args, *fields):
        if name not in known:
            raise _unknown(request, name, list(known))
    return {name: _value(request, parameter, fields, limits) for name, parameter in known.items()}


def _value(request: Request, parameter: Parameter, fields: Mapping[str, Any], limits: Limits) -> Any:
    name = parameter.name
    sent = request.args.getlist(name) if request.args else []
    if sent and not parameter.in_query:
        raise parameter.error(f"Send {name} in the body, not in the address.")
    if name in fields and not parameter.in_body:
        raise parameter.error(f"Send {name} in the address, not in the body.")
    if len(sent) + (name in fields) > 1:
        raise bad_request(f"{name} is given twice.", "duplicate_key")
    value = sent[0] if sent else fields.get(name)
    if isinstance(parameter, MessageParameter):
        if value is not None and (value != b"null" or isinstance(parameter, Message)):
            return parameter.encode(value, limits, request.services.scheduler.checkpoint)
    else:
        if isinstance(value, RawJson):
            value = parameter.from_json(value)
        if value is not None:
            return parameter.parse(value)
    if parameter.required:
        raise parameter.error(f"Send {name}.")
    return parameter.default


def _unknown(request: Request, name: str, known: Sequence[str]) -> ApiError:
    takes = f"it takes {', '.join(known)}" if known else "it takes none"
    sentence = f"There is no parameter {printable(name)} here; {takes}."
    if request.mimetype == "application/x-www-form-urlencoded" and name not in request.args:
        sentence += " In a form & separates fields; curl's --data-urlencode escapes it."
    return bad_request(sentence, "unknown_parameter", parameter=name[:60].encode(errors="replace").decode())


def one_or_many(one: Any, many: list[Any] | None, name: str, error: str = "bad_parameter") -> list[Any]:
    """Return what came as one value or as a list of them; both, or neither, is refused (400)."""
    if (one is None) == (many is None):
        raise bad_request(f"Send either {name} or {name}s.", error, parameter=name)
    return [one] if many is None else many


def validate_name(name: str) -> str:
    """Return the name of a queue; what cannot be one is refused (400), never repaired."""
    if not is_name(name):
        raise bad_request(f"A queue name has {NAME_RULE}", "bad_name")
    return name
