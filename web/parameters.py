"""What a verb takes: a table of parameters, checked before the verb runs.

Each verb lists its parameters beside its route (`api.py`). They come from the query string or from the fields of the
body; one that the verb does not know is refused, so that nobody believes in an option that does not exist.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import simplejson
from flask import request

from broker.names import NAME_RULE, is_name
from web.body import pace
from web.codec import MAX_VALUE_BYTES, encode_message, printable
from web.errors import ApiError, bad_request
from web.runtime import settings


@dataclass(frozen=True)
class Parameter:
    """One parameter: `parse` turns what was sent into what the verb gets, or raises an ApiError."""

    name: str
    default: Any = None
    required: bool = False
    in_query: bool = True  # False: it is accepted in the body alone
    in_body: bool = True  # False: it is accepted in the query string alone

    def parse(self, value: Any) -> Any:
        raise NotImplementedError

    def describe(self) -> str:
        """Return type and bounds, as the reference has them."""
        raise NotImplementedError

    def error(self, message: str, error: str = "bad_parameter") -> ApiError:
        return bad_request(message, error, parameter=self.name)

    def text(self, value: Any) -> str:
        """Return a value as text; what is neither text nor a number nor a boolean is refused."""
        if isinstance(value, simplejson.RawJSON):
            return str(value.encoded_json)
        if isinstance(value, bool):
            return "1" if value else "0"
        if not isinstance(value, str):
            raise self.error(f"{self.name} must be text or a number.")
        return self.encodable(value)

    def encodable(self, text: str) -> str:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self.error(f"{self.name} holds a lone surrogate, which is not a character.", "bad_utf8") from None
        return text


@dataclass(frozen=True)
class Number(Parameter):
    """A number from `minimum` to `maximum`."""

    minimum: float = 0
    maximum: float = math.inf
    unit: str = ""

    def parse(self, value: Any) -> float:
        text = self.text(value)
        try:
            number = float(text) if len(text) <= 20 and text.isascii() and "_" not in text else math.nan
        except ValueError:
            number = math.nan
        if not self.minimum <= number <= self.maximum:
            raise self.error(f"{self.name} must be a number from {self.minimum:g} to {self.maximum:g}.")
        return number

    def describe(self) -> str:
        return f"number, {self.minimum:g} to {self.maximum:g} {self.unit}".strip()


@dataclass(frozen=True)
class Integer(Parameter):
    """A whole number from `minimum` to `maximum`."""

    minimum: int = 0
    maximum: int = 10**12
    unit: str = ""

    def parse(self, value: Any) -> int:
        text = self.text(value)
        digits = text.isascii() and text.isdigit() and len(text) <= 15
        if not digits or not self.minimum <= int(text) <= self.maximum:
            raise self.error(f"{self.name} must be a whole number from {self.minimum} to {self.maximum}.")
        return int(text)

    def describe(self) -> str:
        return f"integer, {self.minimum} to {self.maximum} {self.unit}".strip()


@dataclass(frozen=True)
class Flag(Parameter):
    """1 or true; 0, false or absent is off."""

    default: bool = False

    def parse(self, value: Any) -> bool:
        text = self.text(value)
        if text not in ("0", "1", "false", "true"):
            raise self.error(f"{self.name} must be 1 or 0.")
        return text in ("1", "true")

    def describe(self) -> str:
        return "1 or 0"


@dataclass(frozen=True)
class Text(Parameter):
    """Any text of up to `maximum` characters; an empty one is refused where one is required."""

    maximum: int | None = None

    def parse(self, value: Any) -> str:
        text = self.text(value)
        if not text and self.required:
            raise self.error(f"Send {self.name}.")
        if self.maximum is not None and len(text) > self.maximum:
            raise self.error(f"{self.name} must have up to {self.maximum} characters.")
        return text

    def describe(self) -> str:
        return "text" if self.maximum is None else f"text, up to {self.maximum} characters"


@dataclass(frozen=True)
class Choice(Parameter):
    """One of a few words."""

    words: tuple[str, ...] = ()

    def parse(self, value: Any) -> str:
        text = self.text(value)
        if text not in self.words:
            raise self.error(f"{self.name} can only be {' or '.join(self.words)}.")
        return text

    def describe(self) -> str:
        return " or ".join(f"`{word}`" for word in self.words)


@dataclass(frozen=True)
class QueueName(Parameter):
    """The name of a queue."""

    def parse(self, value: Any) -> str:
        text = self.text(value)
        if not text:
            raise self.error(f"Send {self.name}.")
        return validate_name(text)

    def describe(self) -> str:
        return "queue name"


@dataclass(frozen=True)
class TextList(Parameter):
    """A list of 1 to `maximum` texts: a JSON list, or separated by commas. A text that comes twice counts once."""

    maximum: int = 1000

    def parse(self, value: Any) -> list[str]:
        found = value.split(",") if isinstance(value, str) else value
        if not isinstance(found, list) or not 0 < len(found) <= self.maximum:
            raise self._not_a_list()
        if not all(isinstance(text, str) for text in found):
            raise self._not_a_list()
        return list(dict.fromkeys(self.encodable(text) for text in found))

    def _not_a_list(self) -> ApiError:
        return self.error(f"{self.name} must be a list of 1 to {self.maximum} texts.")

    def describe(self) -> str:
        return f"list of 1 to {self.maximum} texts, or separated by commas"


@dataclass(frozen=True)
class Message(Parameter):
    """A message: any JSON value, or the text of a form."""

    in_query: bool = False
    is_new: bool = True  # False: it comes from a queue, so only the limits of Redis hold

    def parse(self, value: Any) -> bytes:
        return _message(value, self.is_new)

    def describe(self) -> str:
        return "message"


@dataclass(frozen=True)
class MessageList(Parameter):
    """A list of 1 to `maximum` messages."""

    in_query: bool = False
    is_new: bool = True
    maximum: int = 100_000  # they are pushed by one command, and nobody else is served meanwhile

    def parse(self, value: Any) -> list[bytes]:
        if not isinstance(value, list) or not value:
            raise bad_request(f"{self.name} must be a list of at least one message.", "bad_message")
        if len(value) > self.maximum:
            message = f"Send up to {self.maximum} messages at once, or a stream of lines (application/x-ndjson)."
            raise ApiError(413, "too_many_messages", message, limit=self.maximum)
        give_way = pace()
        encoded = []
        for one in value:
            give_way()
            encoded.append(_message(one, self.is_new))
        return encoded

    def describe(self) -> str:
        return f"list of 1 to {self.maximum} messages"


def _message(value: Any, is_new: bool) -> bytes:
    limit = settings().max_message_bytes if is_new else MAX_VALUE_BYTES
    return encode_message(value, limit, allow_empty=not is_new, pace=pace())


def without_limits(parameters: Sequence[Parameter]) -> list[Parameter]:
    """Return the parameters for messages that were in a queue already: empty, or of any size that Redis stores."""
    return [replace(one, is_new=False) if isinstance(one, (Message, MessageList)) else one for one in parameters]


def parse(parameters: Sequence[Parameter], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of each parameter, by name, from the query string and the body's fields.

    Raises:
        ApiError: one is unknown, given twice, missing or not as it must be.
    """
    known = {parameter.name: parameter for parameter in parameters}
    for name in (*request.args, *fields):
        if name not in known:
            raise _unknown(name, list(known))
    return {name: _value(parameter, fields) for name, parameter in known.items()}


def _value(parameter: Parameter, fields: Mapping[str, Any]) -> Any:
    name = parameter.name
    sent = request.args.getlist(name)
    if sent and not parameter.in_query:
        raise parameter.error(f"Send {name} in the body, not in the address.")
    if name in fields and not parameter.in_body:
        raise parameter.error(f"Send {name} in the address, not in the body.")
    if len(sent) + (name in fields) > 1:
        raise bad_request(f"{name} is given twice.", "duplicate_key")
    value = sent[0] if sent else fields.get(name)
    if value is not None or (name in fields and isinstance(parameter, Message)):
        return parameter.parse(value)
    if parameter.required:
        raise parameter.error(f"Send {name}.")
    return parameter.default


def _unknown(name: str, known: Sequence[str]) -> ApiError:
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
