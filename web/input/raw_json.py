"""Validate and compact JSON as text, at C speed. It is not decoded to values, so nothing else about it changes."""

import re

import msgspec

from web.errors import ApiError, quoted

MAX_DEPTH = 32  # levels of nesting in a message
MAX_NAMES = 1000  # in the object of a request, not in a message
MAX_VALUES = 600_000  # in a list of messages; more than a message of 1 MiB can hold
VALUES_AT_ONCE = 10_000  # values counted by one match
NDJSON = "application/x-ndjson"

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Name(str):
    """A name in an object, which msgspec passes to a hook before it reads more."""


_list = msgspec.json.Decoder(list[msgspec.Raw])
_raw = msgspec.json.Decoder(msgspec.Raw)
_string = msgspec.json.Decoder(str)
_strings = msgspec.json.Decoder(list[str])

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_NAME = re.compile(rb'"(?:[^"\\]++|\\.)*+"(?=:)', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_CONTROLS = bytes(range(32))
_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
# The text up to the next value, VALUES_AT_ONCE times. A value follows a comma, or opens a non-empty list or object.
_SOME_VALUES = re.compile(
    rb'(?:(?:"(?:[^"\\]++|\\.)*+"|[^"\[{,]++|[\[{](?=[\]}]))*+[\[{,]){%d}+' % VALUES_AT_ONCE, re.DOTALL
)


def compact_json(data: bytes) -> bytes:
    """Return a JSON text in UTF-8 without the white space between its tokens; nothing else changes.

    Raises:
        ApiError: it is not valid JSON, or contains a lone surrogate (400).
    """
    try:
        return msgspec.json.format(data, indent=-1)
    except RecursionError:
        raise _too_deep() from None
    except msgspec.DecodeError as error:
        if _SURROGATE.search(data):
            raise ApiError("bad_utf8", "A text contains a lone surrogate, which is not a character.") from None
        reason = str(error).removeprefix("JSON is malformed: ").replace("Input data was truncated", "it is cut off")
        raise ApiError("bad_json", f"The body is not valid JSON: {reason}.") from None


def read_object(text: bytes) -> dict[str, bytes]:
    """Return the names and the JSON texts of the values of an object from `compact_json`.

    Raises:
        ApiError: it is not an object, or has a duplicate name or too many names (400).
    """
    if not text.startswith(b"{"):
        raise ApiError("bad_json", 'Send a JSON object, such as {"message": "hello"}.')
    if text.count(b'":') > MAX_NAMES:
        _check_number_of_names(text)
    fields = {name: bytes(raw) for name, raw in _object.decode(text).items()}
    position, names = 1, 0
    while found := _NAME.match(text, position):
        name, names = _string.decode(found[0]), names + 1
        position = found.end() + 1
        # The decoder keeps the last value of a duplicate name. A name followed by another value is thus a duplicate.
        end = position + len(fields[name])
        if names > len(fields) or not text.startswith(fields[name], position) or text[end] not in b",}":
            raise ApiError("duplicate_key", f"{quoted(name)} is given twice.")
        position = end + 1
    return fields


def _check_number_of_names(text: bytes) -> None:
    """Refuse an object of more than MAX_NAMES names (400), not counting those inside its values."""
    names = 0

    def count(_: type, name: str) -> _Name:
        nonlocal names
        names += 1
        if names > MAX_NAMES:
            raise ApiError("bad_json", f"The object has more than {MAX_NAMES} names.")
        return _Name(name)

    msgspec.json.decode(text, type=dict[_Name, msgspec.Raw], dec_hook=count)


def read_list(text: bytes) -> list[bytes]:
    """Return the JSON texts of the values of a list from `compact_json`."""
    return [bytes(raw) for raw in _list.decode(text)]


def read_strings(text: bytes) -> list[str] | None:
    """Return the texts of a list of strings; None if it contains any other value."""
    try:
        return _strings.decode(text)
    except msgspec.ValidationError:
        return None


def read_string(text: bytes) -> str:
    """Return the text of a valid JSON string."""
    return _string.decode(text)


def read_scalar(text: bytes) -> str | None:
    """Return the text of a string, a number as written, "1" or "0" for a boolean, None for null."""
    if text.startswith(b'"'):
        return _string.decode(text)
    return {b"true": "1", b"false": "0", b"null": None}.get(text, text.decode())


def read_lines(lines: list[bytes]) -> list[bytes] | None:
    """Return the texts of lines that are all JSON strings, or the compact JSON of lines that are all objects.

    None if they are neither, or invalid, or must be read one by one: they could be nested too deeply or contain base64.
    Each line must be one value. A value cannot span lines that all begin and end as checked here, so an equal number
    of values and lines means one value per line.
    """
    block = b"\n".join(lines)
    try:
        if block.startswith(b'"') and block.count(b'"\n"') == len(lines) - 1:
            if is_plain(block, b'"\n"', len(lines), quotes=2):
                return block[1:-1].split(b'"\n"')
            texts = _string.decode_lines(block)
            return [text.encode() for text in texts] if len(texts) == len(lines) else None
        if block.startswith(b"{") and block.count(b"}\n{") == len(lines) - 1:
            block.decode()
            if b'"base64"' in block or any(map(_may_be_deep, lines)) or len(_raw.decode_lines(block)) != len(lines):
                return None
            joined = b"[" + b",".join(lines) + b"]"
            return lines if msgspec.json.format(joined, indent=-1) == joined else list(map(compact_json, lines))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    return None


def is_plain(joined: bytes, separator: bytes, number: int, quotes: int = 0) -> bool:
    """Return whether `number` texts, joined by a separator, need nothing but quotes to be JSON strings.

    That is so if they are UTF-8 without quotes, backslashes and control characters. `quotes` is the number of quotes
    around the joined text.
    """
    between = number - 1
    if joined.count(b'"') != between * separator.count(b'"') + quotes or b"\\" in joined:
        return False
    if len(joined) - len(joined.translate(None, _CONTROLS)) != between * separator.count(b"\n"):
        return False
    try:
        return joined.isascii() or bool(joined.decode())
    except UnicodeDecodeError:
        return False


def check_depth(text: bytes) -> None:
    """Refuse a valid compact JSON text nested deeper than MAX_DEPTH (400)."""
    if not _may_be_deep(text):
        return
    brackets = _STRING.sub(b"", text).translate(_SQUARE, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"[]", b"")  # removes one level
    if brackets:
        raise _too_deep()


def _may_be_deep(text: bytes) -> bool:
    """Return whether a text has enough brackets to be nested deeper than MAX_DEPTH."""
    return len(text) > 2 * MAX_DEPTH and text.count(b"[") + text.count(b"{") > MAX_DEPTH


def _too_deep() -> ApiError:
    return ApiError("too_deep", limit=MAX_DEPTH)


def check_number_of_values(text: bytes) -> None:
    """Refuse a list of more than MAX_VALUES values, nested ones included (413), before any of them is decoded."""
    if text.count(b",") <= MAX_VALUES:
        return
    values, end = 0, 0
    while some := _SOME_VALUES.match(text, end):
        values, end = values + VALUES_AT_ONCE, some.end()
        if values >= MAX_VALUES:
            raise ApiError("too_many_values", limit=MAX_VALUES)
