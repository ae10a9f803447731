"""Reading a request's body: its bytes, its media type and its fields."""

import re
from collections.abc import Callable, Iterator
from itertools import product
from string import ascii_letters, digits, hexdigits
from typing import Any

from web.errors import ApiError, quoted
from web.fairness import FREE_BODY_BYTES, HeldBody
from web.input.codec import BOM, decode_utf8, validate_utf8
from web.input.raw_json import NDJSON, compact_json, read_object
from web.live.disconnects import READ_SIZE, ClientConnection
from web.request import Request

FORM, JSON = "application/x-www-form-urlencoded", "application/json"
MULTIPART = "multipart/form-data"
TEXT, BYTES = "text/plain", "application/octet-stream"
MAX_FORM_FIELDS = 1000
BODY_TIMEOUT = 30.0  # seconds to receive a body (no stream of lines), plus the time its size takes at this rate:
MIN_BYTES_PER_SECOND = 1 << 15
ENCODING_HEADERS = ("HTTP_TRANSFER_ENCODING", "HTTP_CONTENT_ENCODING")
UNQUOTE_SIZE = 1 << 16  # bytes of a form unquoted between two checkpoints
ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
ESCAPED_BYTES = {digits.encode(): bytes([int(digits, 16)]) for digits in map("".join, product(hexdigits, repeat=2))}


ODD_PLUS = re.compile(rb"\A\+|\+\+|\+\Z")  # as a space it would lead, trail or be doubled
STRAY_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
ESCAPED_BY_CURL = f"%+-._~{digits}{ascii_letters}".encode()  # all that curl's --data-urlencode writes
ESCAPED_BY_ANY = ESCAPED_BY_CURL + b"*!'()/:,@;$=?"  # what forms of browsers and libraries can hold


class Unescaped(str):
    """The text of a form's value whose sender did not escape it, so that decoding changed it."""

    __slots__ = ()


class RawJson(bytes):
    """The compact JSON text of a field's value."""


class JsonBody(bytes):
    """A body of JSON that is the message itself, to be kept byte for byte."""


def iter_body(request: Request, eager: bool = False) -> Iterator[bytes]:
    """Yield the request's body in blocks of up to 64 KiB; if `eager`, each as soon as any bytes arrive.

    Raises:
        ApiError: the body is incomplete or its chunks are malformed (400), it is too slow (408), or encoded (415).
    """
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise ApiError("unsupported_encoding", "Send the body without Content-Encoding.")
    transfer = request.headers.get("Transfer-Encoding", "").strip().lower()
    if transfer not in ("", "chunked"):
        raise ApiError("unsupported_encoding", "Send the body without a Transfer-Encoding other than chunked.")
    missing = request.content_length if transfer or request.content_length else 0
    while missing is None or missing > 0:
        block = _read_block(request, READ_SIZE if missing is None else min(READ_SIZE, missing), eager)
        if not block and missing:
            raise ApiError("incomplete_body", f"The body is {missing} bytes shorter than its Content-Length.")
        if not block:
            break
        if missing is not None:
            missing -= len(block)
        yield block
    request.is_body_read = True


def _read_block(request: Request, size: int, eager: bool) -> bytes:
    peer = ClientConnection(request.environ)
    try:
        block: bytes = peer.read_some(size) if eager else request.environ["wsgi.input"].read(size)
        return block
    except TimeoutError:
        peer.mark_malformed()
        raise ApiError("body_timeout") from None
    except Exception as error:  # any type: the server's reader raises it for a broken connection or a malformed chunk
        peer.mark_malformed()
        raise ApiError("incomplete_body") from error


def read_body(request: Request, limit: int) -> bytes:
    """Return the whole body, of up to `limit` bytes. Its memory stays reserved until `release_memory`.

    Raises:
        ApiError: it is incomplete (400), too slow (408), larger (413) or encoded (415), or other bodies fill the memory
            for bodies (503).
    """
    if request.environ.get("CONTENT_LENGTH", "0") == "0" and request.environ.keys().isdisjoint(ENCODING_HEADERS):
        request.is_body_read = True
        return b""
    if (request.content_length or 0) > limit:
        raise ApiError("body_too_large", limit=limit)
    seconds = BODY_TIMEOUT + (request.content_length or limit) / MIN_BYTES_PER_SECOND
    ClientConnection(request.environ).limit_body(seconds)
    blocks, size = [], 0
    try:
        for block in iter_body(request):
            size += len(block)
            if size > limit:
                raise ApiError("body_too_large", limit=limit)
            if size > FREE_BODY_BYTES:
                _count_memory(request, len(block))
            blocks.append(block)
    except ApiError:
        blocks.clear()  # the traceback would keep them while the client is answered
        raise
    return b"".join(blocks)


def _count_memory(request: Request, size: int) -> None:
    if request.held_body is None:
        request.held_body = HeldBody(ClientConnection(request.environ).cut_body)
    request.services.body_memory.reserve(request.held_body, size)


def release_memory(request: Request) -> None:
    """Count the memory of the request's body as free. Call it when the request has ended."""
    if request.held_body:
        request.services.body_memory.release(request.held_body)


def media_type(request: Request) -> str:
    """Return the body's media type, without parameters.

    Raises:
        ApiError: it names a charset other than UTF-8 (415).
    """
    kind, charset = request.media
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise ApiError("unsupported_type", f"Unsupported charset {quoted(charset)}. Send UTF-8.")
    return kind


def read_fields(request: Request, limit: int, raw: bool = False) -> dict[str, Any]:
    """Return the fields of a form, as text, or of a JSON object, as `RawJson`; {} if there is no body.

    The body has up to `limit` bytes. With `raw`, plain text, bytes and JSON of another type than
    `application/json` are accepted too, as the field `message`; so is `application/json` with raw=1 in the query.

    Raises:
        ApiError: the body is not valid (400), too large (413) or of another media type (415), or as in `read_body`.
    """
    kind, data = media_type(request), read_body(request, limit)
    if raw and kind in (TEXT, BYTES):
        return {"message": validate_utf8(data) if kind == TEXT else data}
    if raw and is_json_message(request, kind):
        return {"message": JsonBody(data)}
    data = data.removeprefix(BOM)
    if not data:
        return {}
    if kind == JSON or (kind == FORM and data.lstrip().startswith(b"{")):
        decode_utf8(data, "The body")
        return {name: RawJson(text) for name, text in read_object(compact_json(data)).items()}
    if kind == FORM:
        is_curl = request.headers.get("User-Agent", "").startswith("curl/")
        return _read_form(data, ESCAPED_BY_CURL if is_curl else ESCAPED_BY_ANY, request.services.scheduler.checkpoint)
    found = f"Unsupported content type {quoted(kind)}" if kind else "Missing Content-Type"
    sentence = f"{found}. Send {JSON} or a form ({FORM})"
    if raw:
        sentence += f"; or the message itself as {TEXT} or {BYTES}"
        sentence += ", in curl with --data-binary instead of -F" if kind == MULTIPART else ""
    raise ApiError("unsupported_type", f"{sentence}.")


def is_json_message(request: Request, kind: str) -> bool:
    """Return whether a body of a media type is a message in JSON. raw=1 with a body that cannot be one is refused."""
    is_raw = bool(request.args) and request.args.get("raw") in ("1", "true")
    if is_raw and kind != JSON and not kind.endswith("+json"):
        raise ApiError("unsupported_type", f"With raw=1, send {JSON}.")
    return is_raw or kind.endswith("+json")


def _read_form(data: bytes, escaped: bytes, checkpoint: Callable[[], object]) -> dict[str, Any]:
    decode_utf8(data, "The form")
    if data.startswith(b"&") or data.endswith(b"&") or b"&&" in data:
        sentence = "The form has an empty field. In a form, & separates fields; escape it with curl's --data-urlencode."
        raise ApiError("bad_form", sentence)  # probably an unescaped & in a message, which would be cut there
    fields = data.split(b"&", MAX_FORM_FIELDS)
    if len(fields) > MAX_FORM_FIELDS:
        raise ApiError("bad_form", f"The form has more than {MAX_FORM_FIELDS} fields.")
    pairs = []
    try:
        for field in fields:
            if len(data) > UNQUOTE_SIZE:
                checkpoint()
            name, _, value = field.partition(b"=")
            pairs.append((_unquote(name, checkpoint), _value(value, escaped, checkpoint)))
    except UnicodeDecodeError:
        raise ApiError("bad_utf8", "The form is not valid UTF-8.") from None
    return _unique(pairs)


def _value(raw: bytes, escaped: bytes, checkpoint: Callable[[], object]) -> str:
    """Return the text of a form's value: `Unescaped` if it changed and is not what an encoder of forms writes."""
    text = _unquote(raw, checkpoint)
    if text.encode() == raw:
        return text
    is_unescaped = bool(raw.translate(None, escaped) or STRAY_PERCENT.search(raw))
    if escaped is ESCAPED_BY_CURL and b"%" not in raw:
        is_unescaped = is_unescaped or bool(ODD_PLUS.search(raw))
    return Unescaped(text) if is_unescaped else text


def _unique(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        name = next(name for number, (name, _) in enumerate(pairs) if name in dict(pairs[:number]))
        raise ApiError("duplicate_key", f"{quoted(name)} is given twice.")
    return fields


def _unquote(text: bytes, checkpoint: Callable[[], object]) -> str:
    """Return the text of a form's name or value. A % that does not begin a valid escape is kept.

    It calls `checkpoint` between parts, because 16 MiB of escapes take a second.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    parts, start = [], 0
    while start < len(text):
        end = start + UNQUOTE_SIZE
        if end < len(text) and (escape := text.rfind(b"%", end - 2, end)) >= 0:
            end = escape  # it can extend past the end
        if start:
            checkpoint()
        parts.append(ESCAPE.sub(lambda found: ESCAPED_BYTES[found[1]], text[start:end].replace(b"+", b" ")))
        start = end
    return b"".join(parts).decode()


def lines_kind(request: Request) -> str | None:
    """Return the media type of a streamed body's lines: NDJSON, or TEXT with each=line; None for any other body."""
    kind, each = media_type(request), request.args.get("each")
    if each and kind != TEXT:
        raise ApiError("unsupported_type", f"With each=line, send {TEXT}.")
    if kind == NDJSON:
        return NDJSON
    return TEXT if each else None


def refuse_body(request: Request) -> None:
    """Refuse a non-empty body that has a media type (400), such as that of `curl -X GET -d`."""
    if request.mimetype and next(iter_body(request, eager=True), None):
        raise ApiError("unexpected_body")
