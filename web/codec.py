"""A message and its JSON value: encoding what comes in, decoding what goes out. Knows neither HTTP nor Redis."""

import base64
import binascii
import codecs
import re
from collections.abc import Callable, Iterator
from typing import Any

import simplejson

from web.errors import ApiError, bad_request

MAX_JSON_DEPTH = 32  # levels of nesting in a message
MAX_JSON_VALUES = 600_000  # in one body; a message of 1 MiB never has more
VALUES_AT_ONCE = 10_000  # values counted at once, before others get their turn
LARGE_VALUE = 1000  # values in a list or an object that is written in parts,
ITEMS_AT_ONCE = 50  # so many of its items at once
MAX_VALUE_BYTES = 512 << 20  # what Redis stores in one value
NDJSON = "application/x-ndjson"
BOM = codecs.BOM_UTF8
UTF16_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Pace = Callable[[], object]  # called often in the middle of much work, so that others get their turn


def hurry() -> None:
    """Give nobody a turn."""


# --- JSON


def parse_json(data: bytes, pace: Pace = hurry) -> Any:
    """Return the value of a JSON text, with or without a byte order mark. Numbers stay as they are written.

    Raises:
        ApiError: invalid UTF-8, invalid JSON, NaN or infinities, duplicate keys, too deep (400), too many values (413).
    """
    _check_number_of_values(data, pace)
    text = decode_utf8(data, "The body").removeprefix("\ufeff")
    try:
        return _decode(text, pace)
    except RecursionError:
        raise bad_request(f"The JSON is nested deeper than {MAX_JSON_DEPTH} levels.", "too_deep") from None
    except ValueError as error:
        raise bad_request(f"The body is not valid JSON: {error}.", "bad_json") from None


def compact(value: Any) -> str:
    """Return the JSON text of a value, without white space."""
    text: str = _encoder.encode(value)
    return text


def unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return name and value pairs as a dict; a name that comes twice is refused (400)."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise bad_request(f"{printable(name)} is given twice.", "duplicate_key")
            seen.add(name)
    return fields


def _refuse_constant(name: str) -> Any:
    raise bad_request(f"{name} is not JSON.", "bad_json")


# Text up to the next value, VALUES_AT_ONCE times: after a comma, and in a list or an object that is not empty.
_SOME_VALUES = re.compile(
    rb'(?:(?:"(?:[^"\\]++|\\.)*+"|[^"\[{,]++|[\[{](?=\s*+[\]}]))*+[\[{,]){%d}+' % VALUES_AT_ONCE,
    re.DOTALL,
)


def _check_number_of_values(data: bytes, pace: Pace) -> None:
    """Refuse a text whose values would take too much memory and time (413), before they are made."""
    if len(data) <= MAX_JSON_VALUES or sum(map(data.count, (b",", b"[", b"{"))) <= MAX_JSON_VALUES:
        return
    values, end = 0, 0
    while some := _SOME_VALUES.match(data, end):  # ends early at an invalid text
        values, end = values + VALUES_AT_ONCE, some.end()
        if values >= MAX_JSON_VALUES:
            message = f"Send up to {MAX_JSON_VALUES} values at once, or a stream of lines ({NDJSON})."
            raise ApiError(413, "too_many_values", message, limit=MAX_JSON_VALUES)
        pace()


def _decoder(number: Callable[[Any], Any], pairs: Callable[[Any], Any]) -> simplejson.JSONDecoder:
    return simplejson.JSONDecoder(
        parse_int=number, parse_float=number, parse_constant=_refuse_constant, object_pairs_hook=pairs
    )


_plain_decoder = _decoder(simplejson.RawJSON, unique_fields)
_encoder = simplejson.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def _decode(text: str, pace: Pace) -> Any:
    if len(text) < VALUES_AT_ONCE:
        return _plain_decoder.decode(text)

    def number(digits: str) -> simplejson.RawJSON:
        pace()
        return simplejson.RawJSON(digits)

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pace()
        return unique_fields(found)

    pace()
    return _decoder(number, pairs).decode(text)


def _count(value: Any, max_bytes: int, pace: Pace, large: set[int], levels: int = MAX_JSON_DEPTH) -> int:
    """Return how many values a message has; add the ids of its lists and objects with many of them to `large`."""
    if not isinstance(value, (dict, list)):
        return 1
    if levels == 0:
        raise bad_request(f"The message is nested deeper than {MAX_JSON_DEPTH} levels.", "too_deep")
    if len(value) > max_bytes:
        raise too_large(max_bytes)  # each value takes at least a byte
    pace()
    values = value.values() if isinstance(value, dict) else value
    count = 1 + sum(_count(inner, max_bytes, pace, large, levels - 1) for inner in values)
    if count > LARGE_VALUE:
        large.add(id(value))
    return count


def _compact_parts(value: Any, large: set[int], pace: Pace) -> Iterator[str]:
    """Yield the JSON text of a value in parts; of a large one `compact` would take long."""
    pace()
    if id(value) not in large:
        yield compact(value)
    elif isinstance(value, dict):
        for number, name in enumerate(value):
            yield ("," if number else "{") + compact(name) + ":"
            yield from _compact_parts(value[name], large, pace)
        yield "}"
    else:
        for start in range(0, len(value), ITEMS_AT_ONCE):
            items = value[start : start + ITEMS_AT_ONCE]
            if large.isdisjoint(map(id, items)):
                pace()
                yield ("," if start else "[") + compact(items)[1:-1]
                continue
            for number, item in enumerate(items, start):
                yield "," if number else "["
                yield from _compact_parts(item, large, pace)
        yield "]"


# --- messages


def encode_message(value: Any, max_bytes: int, *, allow_empty: bool = False, pace: Pace = hurry) -> bytes:
    """Return the message that a JSON value stands for.

    A string is itself, {"base64": "..."} is raw bytes, any other value its compact JSON text.

    Raises:
        ApiError: null, empty, lone surrogates, bad base64, too deep (400), larger than `max_bytes` (413).
    """
    message = _encode(value, max_bytes, pace)
    return message if allow_empty and not message else validate_message(message, max_bytes)


def _encode(value: Any, max_bytes: int, pace: Pace) -> bytes:
    if value is None:
        raise bad_request("A message cannot be null.", "empty_message")
    try:
        if isinstance(value, bytes):
            return value
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, simplejson.RawJSON):
            return bytes(value.encoded_json.encode())
        if isinstance(value, dict) and list(value) == ["base64"] and isinstance(value["base64"], str):
            return base64.b64decode(value["base64"].encode(), validate=True)
        large: set[int] = set()
        _count(value, max_bytes, pace, large)
        return "".join(_compact_parts(value, large, pace)).encode()
    except UnicodeEncodeError:
        raise bad_request("A message holds a lone surrogate, which is not a character.", "bad_utf8") from None
    except binascii.Error as error:
        raise bad_request(f"The base64 is not valid: {error}.", "bad_base64") from None


def validate_message(message: bytes, max_bytes: int) -> bytes:
    """Return the message if it is neither empty (400) nor larger than `max_bytes` (413)."""
    if not message:
        raise bad_request("A message must not be empty.", "empty_message")
    if len(message) > max_bytes:
        raise too_large(max_bytes)
    return message


def too_large(max_bytes: int) -> ApiError:
    """Return the error for a message larger than MAX_MESSAGE_BYTES, or than Redis stores (413)."""
    limit = "Redis stores" if max_bytes == MAX_VALUE_BYTES else "MAX_MESSAGE_BYTES"
    sentence = f"A message is larger than {limit} ({max_bytes} bytes)."
    return ApiError(413, "message_too_large", sentence, limit=max_bytes)


def validate_utf8(data: bytes) -> bytes:
    """Return the bytes if they are UTF-8 (else 400)."""
    decode_utf8(data, "The text", "; send bytes as application/octet-stream")
    return data


def decode_utf8(data: bytes, what: str, advice: str = "") -> str:
    """Return the text of UTF-8 bytes; other bytes are refused (400) with a sentence about `what`."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if data.startswith(UTF16_BOMS):
            sentence = f"{what} is UTF-16; convert it to UTF-8{advice}."
        else:
            sentence = f"{what} is not valid UTF-8 (byte {error.start}){advice}."
        raise bad_request(sentence, "bad_utf8") from None


def decode_message(message: bytes) -> Any:
    """Return the JSON value for a message: its text, or {"base64": ...} where it is not UTF-8."""
    try:
        return message.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(message).decode()}


def preview(head: bytes, size: int, characters: int) -> dict[str, Any]:
    """Return the preview of a message of `size` bytes from its first bytes (4 a character are enough)."""
    cuts = min(4, len(head)) if len(head) < size else 1  # a cut head may end inside a character
    for cut in range(cuts):
        try:
            return {"preview": head[: len(head) - cut].decode()[:characters], "bytes": size}
        except UnicodeDecodeError:
            continue
    return {"preview": decode_message(head[:characters]), "bytes": size}


def printable(text: str) -> str:
    """Return any text as it may stand in a sentence: short, on one line, in ASCII."""
    return ascii(text[:60])
