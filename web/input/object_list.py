"""A parameter that is a list of objects, whose fields are checked as the parameters of a request are."""

from collections.abc import Callable
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
        fields = read_object(text) if text.startswith(b"{") else {"id": text}
        if unknown := fields.keys() - {field.name for field in self.fields}:
            sentence = f"Unknown field {quoted(min(unknown))} in {place}."
            raise ApiError("unknown_parameter", sentence, parameter=place)
        values = {}
        for field in self.fields:
            try:
                raw = fields.get(field.name)
                values[field.name] = convert(field, None if raw is None else RawJson(raw), limits, checkpoint)
            except ApiError as error:
                details = error.details | {"parameter": f"{place}.{field.name}"}
                raise ApiError(error.error, f"{place}: {error.message}", **details) from None
        return values

    def schema(self) -> dict[str, Any]:
        schemas = {field.name: field.schema() | {"description": field.doc} for field in self.fields}
        required = [field.name for field in self.fields if field.required]
        item = {"type": "object", "properties": schemas, "required": required, "additionalProperties": False}
        either = {"title": "id or object", "anyOf": [{"type": "string", "minLength": 1}, item]}
        return {"type": "array", "items": either, "maxItems": self.maximum}
