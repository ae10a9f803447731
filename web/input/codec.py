"""Messages and their JSON values: encoding, decoding, validating, previews. Knows neither HTTP nor Redis."""

import base64
import binascii
import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unicodedata import combining

import msgspec
import simplejson

from web.errors import ApiError
from web.input.raw_json import (
    check_depth,
    check_number_of_values,
    compact_json,
    read_lines,
    read_list,
    read_string,
    read_strings,
)

MAX_VALUE_BYTES = 512 << 20  # the largest value that Redis stores
BOM = codecs.BOM_UTF8
UTF16_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
BASE64 = re.compile(rb'\{"base64":("(?:[^"\\]++|\\.)*+")\}', re.DOTALL)
JOINER = "\u200d"  # joins two emoji into one
JOINED = {JOINER, "\ufe0f", *"🏻🏼🏽🏾🏿"}  # part of the character before, like accents
MESSAGES_AT_ONCE = 500  # messages encoded between two checkpoints


@dataclass(frozen=True)
class Limits:
    """The limits of a message. One that is not new can be empty, deeply nested, and as large as Redis allows."""

    max_bytes: int
    is_new: bool = True


BY_REDIS = Limits(MAX_VALUE_BYTES, is_new=False)

_encoder = simplejson.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
encode = msgspec.json.Encoder().encode  # the same as `compact`, as bytes: for the answers of the fast path


def compact(value: Any) -> str:
    """Return the JSON text of a value, without white space."""
    text: str = _encoder.encode(value)
    return text


def encode_message(text: bytes, limits: Limits) -> bytes:
    """Return the message for a compact JSON text: a string's text, the bytes of {"base64": "..."}, or the JSON itself.

    Raises:
        ApiError: it is null, empty, invalid base64 or nested too deeply (400), or too large (413).
    """
    if text.startswith(b'"'):
        return validate_message(read_string(text).encode(), limits)
    if text == b"null":
        raise ApiError("empty_message")
    if found := BASE64.fullmatch(text):
        try:
            return validate_message(base64.b64decode(read_string(found[1]).encode(), validate=True), limits)
        except binascii.Error as error:
            raise ApiError("bad_base64", f"The base64 is not valid: {error}.") from None
    validate_message(text, limits)
    if limits.is_new:
        check_depth(text)
    return text


def validate_json_message(data: bytes, limits: Limits) -> bytes:
    """Return a JSON message as it came; one that is empty, invalid, too deep (400) or too large (413) is refused."""
    validate_message(data, limits)
    decode_utf8(data, "The body")
    text = compact_json(data.removeprefix(BOM))
    if limits.is_new:
        check_depth(text)
    return data


def encode_messages(text: bytes, limits: Limits, maximum: int, checkpoint: Callable[[], object]) -> list[bytes]:
    """Return the messages for the values of a compact JSON list, calling `checkpoint` between parts of the work.

    Raises:
        ApiError: as in `encode_message`, or the list has more than `maximum` messages, or too many values (413).
    """
    check_number_of_values(text)
    texts = read_strings(text)
    values = read_list(text) if texts is None else []
    if len(texts or values) > maximum:
        raise ApiError("too_many_messages", limit=maximum)
    if texts is not None:
        return validate_messages([string.encode() for string in texts], limits)
    messages: list[bytes] = []
    for value in values:
        if messages and len(messages) % MESSAGES_AT_ONCE == 0:
            checkpoint()
        messages.append(encode_message(value, limits))
    return messages


def encode_lines(lines: list[bytes], limits: Limits) -> list[bytes] | None:
    """Return the messages for lines of JSON if all are valid and either strings or objects; else None.

    This is much faster than encoding one line after another.
    """
    messages = read_lines(lines) if lines else []
    if messages is None:
        return None
    try:
        return validate_messages(messages, limits)
    except ApiError:
        return None


def validate_message(message: bytes, limits: Limits) -> bytes:
    """Return the message unless it is empty (400) or too large (413)."""
    if not message and limits.is_new:
        raise ApiError("empty_message")
    if len(message) > limits.max_bytes:
        raise ApiError("message_too_large", limit=limits.max_bytes)
    return message


def validate_messages(messages: list[bytes], limits: Limits) -> list[bytes]:
    """Return the messages unless one is empty (400) or too large (413)."""
    # Checking all at once is much faster than one by one.
    if messages and not (all(messages) and max(map(len, messages)) <= limits.max_bytes):
        for message in messages:
            validate_message(message, limits)
    return messages


def validate_utf8(data: bytes) -> bytes:
    """Return the bytes unless they are not UTF-8 (400)."""
    decode_utf8(data, "The text", "; send binary data as application/octet-stream")
    return data


def decode_utf8(data: bytes, subject: str, advice: str = "") -> str:
    """Decode UTF-8; refuse anything else (400). The error sentence begins with `subject` and ends with `advice`."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if data.startswith(UTF16_BOMS):
            sentence = f"{subject} is UTF-16; convert it to UTF-8{advice}."
        else:
            sentence = f"{subject} is not valid UTF-8 (at byte {error.start}){advice}."
        raise ApiError("bad_utf8", sentence) from None


def decode_message(message: bytes) -> Any:
    """Return the JSON value of a message: its text, or {"base64": ...} if it is not UTF-8."""
    try:
        return message.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(message).decode()}


def cut_text(text: str, characters: int) -> str:
    """Return the first characters of a text without splitting a letter from its accents: "abe\u0301" at 3 is "ab"."""
    end = characters
    while 0 < end < len(text) and (combining(text[end]) or text[end] in JOINED or text[end - 1] == JOINER):
        end -= 1
    return text[: end or characters]


def preview(head: bytes, size: int, characters: int) -> dict[str, Any]:
    """Return the preview of a message of `size` bytes. `head` is its beginning; 4 bytes per character are enough."""
    cuts = min(4, len(head)) if len(head) < size else 1  # the head can end inside a character
    for cut in range(cuts):
        try:
            return {"preview": cut_text(head[: len(head) - cut].decode(), characters), "bytes": size}
        except UnicodeDecodeError:
            continue
    return {"preview": decode_message(head[:characters]), "bytes": size}
