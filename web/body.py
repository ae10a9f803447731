"""Reading a request's body: its bytes, its media type, and the fields that it holds."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

from flask import request

from web.codec import BOM, MAX_VALUE_BYTES, NDJSON, decode_utf8, parse_json, unique_fields, validate_utf8
from web.errors import ApiError, bad_request
from web.peer import READ_SIZE, Peer
from web.runtime import settings

FORM, JSON = "application/x-www-form-urlencoded", "application/json"
TEXT, BYTES = "text/plain", "application/octet-stream"
MAX_FORM_FIELDS = 1000


def iter_body(eager: bool = False) -> Iterator[bytes]:
    """Yield the request's body in blocks of up to 64 KiB; when `eager`, each as soon as anything has come.

    Raises:
        ApiError: the body is cut or its chunks are malformed (400 `short_body`), or encoded (415).
    """
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise ApiError(415, "unsupported_encoding", "Send the body without Content-Encoding.")
    transfer = request.headers.get("Transfer-Encoding", "").strip().lower()
    if transfer not in ("", "chunked"):
        raise ApiError(415, "unsupported_encoding", "Send the body without a Transfer-Encoding other than chunked.")
    stream, missing, peer = request.environ["wsgi.input"], request.content_length, Peer(request.environ)
    if missing is None and not transfer:
        return
    peer.limit_reads()
    while missing is None or missing > 0:
        try:
            size = READ_SIZE if missing is None else min(READ_SIZE, missing)
            block: bytes = peer.read_some(size) if eager else stream.read(size)
        except Exception as error:  # whatever the server's reader raises for a cut connection or a malformed chunk
            peer.mark_malformed()
            raise bad_request("The body is cut off or its chunks are malformed.", "short_body") from error
        if not block and missing:
            raise bad_request(f"The body is {missing} bytes shorter than its Content-Length.", "short_body")
        if not block:
            return
        if missing is not None:
            missing -= len(block)
        yield block


def read_body(is_new: bool = True) -> bytes:
    """Return the whole body. One whose messages are not new may be as large as what Redis stores.

    Raises:
        ApiError: it is cut (400), longer than MAX_BODY_BYTES (413), or encoded (415).
    """
    limit = settings().max_body_bytes if is_new else max(settings().max_body_bytes, MAX_VALUE_BYTES)
    name = "MAX_BODY_BYTES" if limit == settings().max_body_bytes else "a message can be"
    too_large = ApiError(413, "body_too_large", f"The body is larger than {name} ({limit} bytes).", limit=limit)
    if (request.content_length or 0) > limit:
        raise too_large
    blocks, size = [], 0
    for block in iter_body():
        size += len(block)
        if size > limit:
            raise too_large
        blocks.append(block)
    return b"".join(blocks)


def media_type() -> str:
    """Return the body's media type, without parameters.

    Raises:
        ApiError: it names a charset other than UTF-8 (415).
    """
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise ApiError(415, "unsupported_type", f"Send text as UTF-8, not as {charset}.")
    return request.mimetype


def read_fields(raw: bool = False, is_new: bool = True) -> dict[str, Any]:
    """Return the fields of a form or a JSON object in the body; {} without a body.

    With `raw` a body of plain text or bytes is taken too, as the field `message`. `is_new` is that of `read_body`.

    Raises:
        ApiError: anything else (400, 413, 415).
    """
    kind, data = media_type(), read_body(is_new)
    if raw and kind in (TEXT, BYTES):
        return {"message": validate_utf8(data) if kind == TEXT else data}
    data = data.removeprefix(BOM)
    if not data:
        return {}
    if kind == JSON or (kind == FORM and data.lstrip().startswith(b"{")):
        value = parse_json(data)
        if not isinstance(value, dict):
            raise bad_request('Send a JSON object, such as {"message": "hello"}.', "bad_json")
        return value
    if kind == FORM:
        return _read_form(data)
    raise ApiError(
        415, "unsupported_type", f"Content-Type {kind or '(none)'} is not read here; send {JSON} or a form ({FORM})."
    )


def _read_form(data: bytes) -> dict[str, Any]:
    text = decode_utf8(data, "The form")
    if text.startswith("&") or text.endswith("&") or "&&" in text:
        sentence = "The form holds an empty field. In a form & separates fields; curl's --data-urlencode escapes it."
        raise bad_request(sentence, "bad_form")  # it may be the end of a message that was cut
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FORM_FIELDS)
    except UnicodeDecodeError:
        raise bad_request("The form is not valid UTF-8.", "bad_utf8") from None
    except ValueError:
        raise bad_request(f"The form has more than {MAX_FORM_FIELDS} fields.", "bad_form") from None
    return unique_fields(pairs)


def lines_kind() -> str | None:
    """Return what the lines of a streamed body are: NDJSON or TEXT (with each=line); None where it is not streamed."""
    kind, each = media_type(), request.args.get("each")
    if each and kind != TEXT:
        raise ApiError(415, "unsupported_type", f"each=line reads {TEXT}.")
    if kind == NDJSON:
        return NDJSON
    return TEXT if each else None


def refuse_body() -> None:
    """Refuse a body that holds something of a media type (400), such as the fields of `curl -X GET -d`."""
    if request.mimetype and next(iter_body(eager=True), None):
        raise bad_request("A GET takes its parameters from the address; send no body.", "unexpected_body")
