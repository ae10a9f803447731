"""The kinds of parameters that an operation takes: how each is parsed, checked and described.

A parameter comes from the query string or from a field of the body. An unknown one is refused, so that nobody relies on
an option that does not exist.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from broker.keys import NAME_PATTERN, is_name
from web.errors import ERRORS, ApiError, quoted
from web.input.body import FORM, JsonBody, RawJson
from web.input.codec import BY_REDIS, Limits, encode_message, encode_messages, validate_json_message, validate_message
from web.input.raw_json import check_number_of_values, read_list, read_object, read_scalar, read_strings
from web.request import Request

MAX_NAMES = 10  # of queues in one path
MAX_NUMBER_CHARACTERS = 40  # the longest number that a program writes has 25


@dataclass(frozen=True)
class Parameter:
    """A parameter: `parse` converts the text sent to the value for the view, or raises an ApiError."""

    name: str
    doc: str = ""  # a sentence for the reference
    default: Any = None
    required: bool = False
    in_query: bool = True  # False: only the body can hold it
    in_body: bool = True  # False: only the query string can hold it
    empty: str = ""  # what an empty text stands for

    def parse(self, value: str) -> Any:
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        """Return type and bounds, as JSON Schema."""
        raise NotImplementedError

    def error(self, message: str, error: str = "bad_parameter") -> ApiError:
        return ApiError(error, message, parameter=self.name)

    def from_json(self, text: RawJson) -> Any:
        """Return the text that `parse` takes for a JSON value: a number as written, true as 1; None for null."""
        if text.startswith((b"[", b"{")):
            raise self.error(f"{self.name} must be a string or a number.")
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

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.minimum, "maximum": self.maximum}


NO_FRACTION = re.compile(rb"\.0+\Z")  # some programs write every JSON number as 5.0


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

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}


@dataclass(frozen=True)
class Flag(Parameter):
    """A switch: 1 or true is on; 0, false or absent is off."""

    default: bool = False

    def parse(self, text: str) -> bool:
        if text not in ("0", "1", "false", "true"):
            raise self.error(f"{self.name} must be 1 or 0.")
        return text in ("1", "true")

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Text(Parameter):
    """Any text of `minimum` to `maximum` characters; a required one must not be empty."""

    minimum: int = 0
    maximum: int | None = None

    def parse(self, text: str) -> str:
        if not text and (self.required or self.minimum):
            raise self.error(f"Missing parameter: {self.name}.")
        if self.maximum is not None and len(text) > self.maximum:
            raise self.error(f"{self.name} must have at most {self.maximum} characters.")
        return text

    def schema(self) -> dict[str, Any]:
        bounds = {"minLength": max(self.minimum, int(self.required)), "maxLength": self.maximum}
        return {"type": "string"} | {name: bound for name, bound in bounds.items() if bound}


MAX_COMPARED = 60  # characters of an unknown name that are compared with the known ones, which takes quadratic time

VISIBLE_ASCII = re.compile("[!-~]{1,255}")
WORD = re.compile(r"[\w.:-]{1,40}", re.ASCII)


@dataclass(frozen=True)
class AsciiName(Parameter):
    """A name of 1 to `maximum` visible ASCII characters, chosen by the client."""

    maximum: int = 255

    def parse(self, text: str) -> str:
        if not VISIBLE_ASCII.fullmatch(text) or len(text) > self.maximum:
            raise self.error(f"{self.name} must have 1 to {self.maximum} visible ASCII characters.")
        return text

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^[!-~]{{1,{self.maximum}}}$"}


@dataclass(frozen=True)
class Choice(Parameter):
    """One of a few words."""

    words: tuple[str, ...] = ()

    def parse(self, text: str) -> str:
        if text not in self.words:
            raise self.error(f"{self.name} must be {' or '.join(self.words)}.")
        return text

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.words)}


@dataclass(frozen=True)
class QueueName(Parameter):
    """The name of a queue."""

    def parse(self, text: str) -> str:
        if not text:
            raise self.error(f"Missing parameter: {self.name}.")
        return validate_name(text)

    def schema(self, names: int = 1) -> dict[str, Any]:
        """Return the schema of up to `names` names, separated by commas."""
        more = f"(?:,{NAME_PATTERN.pattern}){{0,{names - 1}}}" if names > 1 else ""
        return {"type": "string", "pattern": f"^{NAME_PATTERN.pattern}{more}$"}


@dataclass(frozen=True)
class TextList(Parameter):
    """A list of 1 to `maximum` texts, in JSON or separated by commas. Duplicates are dropped."""

    maximum: int = 1000

    def from_json(self, text: RawJson) -> str | list[str] | None:
        if text.startswith(b'"') or text == b"null":
            return read_scalar(text)
        is_list = text.startswith(b"[") and text.count(b'",') < self.maximum  # counted before anything is built
        found = read_strings(text) if is_list else None
        if found is None:
            raise self._not_a_list()
        return found

    def parse(self, value: str | list[str]) -> list[str]:
        found = value.split(",", self.maximum) if isinstance(value, str) else value
        if not 0 < len(found) <= self.maximum:
            raise self._not_a_list()
        return list(dict.fromkeys(found))

    def _not_a_list(self) -> ApiError:
        return self.error(f"{self.name} must be a list of 1 to {self.maximum} strings.")

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": self.maximum}


@dataclass(frozen=True)
class MessageParameter(Parameter):
    """A parameter that holds messages, which are encoded within limits instead of parsed."""

    in_query: bool = False

    def encode(self, value: RawJson | bytes | str, limits: Limits, checkpoint: Callable[[], object]) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Message(MessageParameter):
    """A message: any JSON value, the text of a form, or the body itself."""

    def encode(self, value: RawJson | bytes | str, limits: Limits, checkpoint: Callable[[], object]) -> bytes:
        if isinstance(value, RawJson):
            return encode_message(value, limits)
        if isinstance(value, JsonBody):
            return bytes(validate_json_message(value, limits))
        return validate_message(value.encode() if isinstance(value, str) else value, limits)

    def schema(self) -> dict[str, Any]:
        return {"$ref": "#/components/schemas/NewMessage"}


@dataclass(frozen=True)
class MessageList(MessageParameter):
    """A list of 1 to `maximum` messages."""

    maximum: int = 100_000  # one transaction pushes them, which blocks Redis meanwhile

    def encode(self, value: RawJson | bytes | str, limits: Limits, checkpoint: Callable[[], object]) -> list[bytes]:
        if not isinstance(value, RawJson) or not value.startswith(b"[") or value == b"[]":
            raise ApiError("bad_message", f"{self.name} must be a list of at least one message.")
        return encode_messages(value, limits, self.maximum, checkpoint)

    def schema(self) -> dict[str, Any]:
        items = {"$ref": "#/components/schemas/NewMessage"}
        return {"type": "array", "items": items, "minItems": 1, "maxItems": self.maximum}


@dataclass(frozen=True)
class PlacedMessageList(MessageList):
    """A list of 1 to `maximum` messages with the position of each."""

    maximum: int = 1000

    def encode(self, value: RawJson | bytes | str, limits: Limits, checkpoint: Callable[[], object]) -> list[Any]:
        if not isinstance(value, RawJson) or not value.startswith(b"["):
            raise self._not_placed()
        check_number_of_values(value)
        items = read_list(value)
        if not 0 < len(items) <= self.maximum:
            raise self._not_placed()
        found = []
        for item in items:
            fields = read_object(item) if item.startswith(b"{") else {}
            if fields.keys() != {"position", "message"}:
                raise self._not_placed()
            position = Integer("position").parse(NO_FRACTION.sub(b"", fields["position"]).decode())
            found.append((position, encode_message(fields["message"], limits)))
            checkpoint()
        return found

    def _not_placed(self) -> ApiError:
        return self.error(f"{self.name} must be a list of 1 to {self.maximum} objects with position and message.")

    def schema(self) -> dict[str, Any]:
        empty = {"type": "string", "maxLength": 0}  # such a message can wait, though nobody can push it
        no_bytes = _object_schema({"base64": empty})
        message = {"anyOf": [Message("message").schema(), empty, no_bytes]}
        item = _object_schema({"position": Integer("position").schema(), "message": message})
        return {"type": "array", "items": item, "minItems": 1, "maxItems": self.maximum}


def _object_schema(fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def parse(
    request: Request, parameters: Sequence[Parameter], fields: Mapping[str, Any], limits: Limits = BY_REDIS
) -> dict[str, Any]:
    """Return the value of each parameter, by name, from the query string and the fields of the body.

    `limits` apply to messages.

    Raises:
        ApiError: a parameter is unknown, given twice, missing or invalid.
    """
    known = {parameter.name: parameter for parameter in parameters}
    sent = dict.fromkeys((*request.args, *fields))
    for name in sent:
        if name not in known:
            raise _unknown(request, name, list(known), fields)
    return {
        name: _value(request, parameter, fields, limits) if name in sent or parameter.required else parameter.default
        for name, parameter in known.items()
    }


def _value(request: Request, parameter: Parameter, fields: Mapping[str, Any], limits: Limits) -> Any:
    name = parameter.name
    sent = request.args.getlist(name) if request.args else []
    if sent and not parameter.in_query:
        raise parameter.error(f"Send {name} in the body, not in the query string.")
    if name in fields and not parameter.in_body:
        raise parameter.error(f"Send {name} in the query string, not in the body.")
    if len(sent) + (name in fields) > 1:
        raise ApiError("duplicate_key", f"{name} is given twice.")
    value = sent[0] if sent else fields.get(name)
    return convert(parameter, value, limits, lambda: request.services.scheduler.checkpoint())


def convert(parameter: Parameter, value: Any, limits: Limits, checkpoint: Callable[[], object]) -> Any:
    """Return the value of a parameter that was sent as `value`; its default if that is None.

    Raises:
        ApiError: it is invalid, or missing.
    """
    if isinstance(parameter, MessageParameter):
        if value is not None and (value != b"null" or isinstance(parameter, Message)):
            return parameter.encode(value, limits, checkpoint)
    else:
        if isinstance(value, RawJson):
            value = parameter.from_json(value)
        if value is not None:
            return parameter.parse(parameter.empty if value == "" else value)
    if parameter.required:
        raise parameter.error(f"Missing parameter: {parameter.name}.")
    return parameter.default


def _unknown(request: Request, name: str, known: Sequence[str], fields: Mapping[str, Any]) -> ApiError:
    sentence = f"Unknown parameter {quoted(name)}."
    is_form = request.mimetype == FORM and isinstance(fields.get(name), str)
    if is_form and fields == {name: ""} and "message" in known and WORD.fullmatch(name):
        sentence += f" Did you mean message={name}?"  # curl -d hello
    elif similar := get_close_matches(name[:MAX_COMPARED], known, 1):
        sentence += f" Did you mean {similar[0]}?"
    else:
        sentence += f" Known parameters: {', '.join(known)}." if known else " This operation has no parameters."
    if is_form and len(fields) > 1:
        sentence += " In a form, & separates fields; escape it with curl's --data-urlencode."
    return ApiError("unknown_parameter", sentence, parameter=name[:60].encode(errors="replace").decode())


def one_or_many(one: Any, many: list[Any] | None, name: str, error: str = "bad_parameter") -> list[Any]:
    """Return the values, sent as one or as a list; refuse both at once, or neither (400)."""
    if (one is None) == (many is None):
        raise ApiError(error, f"Send either {name} or {name}s.", parameter=name)
    return [one] if many is None else many


def validate_name(name: str) -> str:
    """Return the name of a queue; refuse any other text (400) instead of repairing it."""
    if not is_name(name):
        raise ApiError("bad_name")
    return name


def validate_names(text: str) -> list[str]:
    """Return the names of queues, separated by commas; refuse (400) an invalid one, one twice, and too many of them."""
    names = text.split(",", MAX_NAMES)
    if len(names) > MAX_NAMES:
        raise ApiError("bad_name", f"One request can name at most {MAX_NAMES} queues.")
    for number, name in enumerate(names):
        if not is_name(name):
            raise ApiError("bad_name", f"Not a queue name: {quoted(name)}. {ERRORS['bad_name'].sentence}")
        if name in names[:number]:
            raise ApiError("bad_name", f"The queue {quoted(name)} is named twice.")
    return names
