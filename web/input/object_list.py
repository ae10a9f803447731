"""A parameter that is a list of objects, whose fields are checked as the parameters of a request are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from web.errors import ApiError, quoted
from web.input.body import RawJson
from web.input.codec import Limits
from web.input.parameters import MessageParameter, Parameter, convert
from web.input.raw_json import check_number_of_values, read_list, read_object


@dataclass(frozen=True)
class ObjectList(MessageParameter):
    """A list of up to `maximum` objects in a JSON body. A string stands for an object that has only an id."""

    fields: tuple[Parameter, ...] = ()
    maximum: int = 1000

    def encode(
        self, value: RawJson | bytes | str, limits: Limits, checkpoint: Callable[[], object]
    ) -> list[dict[str, Any]]:
        if not isinstance(value, RawJson) or not value.startswith(b"["):
            raise self.error(f"{self.name} must be a list, in a JSON body.")
        check_number_of_values(value)
        texts = read_list(value)
        if len(texts) > self.maximum:
            raise self.error(f"{self.name} must have at most {self.maximum:,} items.")
        return [self._item(number, text, limits, checkpoint) for number, text in enumerate(texts)]

    def _item(self, number: int, text: bytes, limits: Limits, checkpoint: Callable[[], object]) -> dict[str, Any]:
        place = f"{self.name}[{number}]"
        if not text.startswith((b'"', b"{")):
            raise ApiError("bad_parameter", f"{place} must be an id or an object.", parameter=place)
        sent = read_object(text) if text.startswith(b"{") else {"id": text}
        return convert_fields(self.fields, sent, place, limits, checkpoint)

    def schema(self) -> dict[str, Any]:
        item = object_schema_of(self.fields)
        either = {"title": "item", "anyOf": [{"type": "string", "minLength": 1}, item]}
        return {"type": "array", "items": either, "maxItems": self.maximum}


def convert_fields(
    fields: Sequence[Parameter],
    sent: Mapping[str, bytes],
    place: str,
    limits: Limits,
    checkpoint: Callable[[], object],
) -> dict[str, Any]:
    """Return the value of each field of an object, sent as JSON texts; `place` names the object in errors.

    Raises:
        ApiError: a field is unknown, invalid or missing.
    """
    if unknown := sent.keys() - {field.name for field in fields}:
        raise ApiError("unknown_parameter", f"Unknown field {quoted(min(unknown))} in {place}.", parameter=place)
    values = {}
    for field in fields:
        try:
            raw = sent.get(field.name)
            values[field.name] = convert(field, None if raw is None else RawJson(raw), limits, checkpoint)
        except ApiError as error:
            details = error.details | {"parameter": f"{place}.{field.name}"}
            raise ApiError(error.error, f"{place}: {error.message}", **details) from None
    return values


def object_schema_of(fields: Sequence[Parameter]) -> dict[str, Any]:
    """Return the schema of an object with these fields."""
    schemas = {field.name: field.schema() | {"description": field.doc} for field in fields}
    required = [field.name for field in fields if field.required]
    return {"type": "object", "properties": schemas, "required": required, "additionalProperties": False}
