"""What a caller sends, as message bytes; what a message is in an answer. Knows HTTP bodies, nothing of Redis."""

import base64
import binascii
import contextlib
import math
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import simplejson
from flask import Response, current_app, request

from web.errors import Refusal, bad

DEEPEST = 32  # levels of nesting a JSON message may have
MOST_VALUES = 1_000_000  # numbers, and objects, in one body: a second's work, in which nobody else is served
MOST = 100_000  # messages in one list: they are pushed by one command, and nobody else is served meanwhile
SLOW = 60.0  # seconds a client may take for its next bytes
LINGER, IDLE = 30.0, 5.0  # seconds to read on after an answer, in all and from block to block
BLOCK = 1 << 16  # bytes read from a body at once
FORM, JSON, NDJSON = "application/x-www-form-urlencoded", "application/json", "application/x-ndjson"


# --- reading a body


def blocks() -> Iterator[bytes]:
    """Yield the request's body in blocks of up to 64 KiB.

    Raises:
        Refusal: the body is cut or its chunks are malformed (400 `short_body`), or encoded (415).
    """
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise Refusal(415, "unsupported_encoding", "Send the body without Content-Encoding.")
    transfer = request.headers.get("Transfer-Encoding", "").strip().lower()
    if transfer not in ("", "chunked"):
        raise Refusal(415, "unsupported_encoding", "Send the body without a Transfer-Encoding other than chunked.")
    stream, missing = request.environ["wsgi.input"], request.content_length
    if missing is None and not transfer:
        return
    if sock := request.environ.get("gunicorn.socket"):
        sock.settimeout(SLOW)  # `read_on` takes it back
    while missing is None or missing > 0:
        try:
            block: bytes = stream.read(BLOCK if missing is None else min(BLOCK, missing))
        except Exception:  # whatever the server's reader raises at a cut connection or a malformed chunk
            request.environ["body.malformed"] = True
            raise bad("The body is cut off or its chunks are malformed.", "short_body") from None
        if not block and missing:
            raise bad(f"The body is {missing} bytes shorter than its Content-Length.", "short_body")
        if not block:
            return
        if missing is not None:
            missing -= len(block)
        yield block


def read_on(response: Response) -> Response:
    """After the answer, read what is left of the body for a while and drop it.

    A connection that is closed with unread bytes is reset, and the client might never see why it was refused.
    """
    environ = request.environ
    stream: Any = environ["wsgi.input"]
    sock: Any = environ.get("gunicorn.socket")

    def drop() -> None:
        end, done = time.monotonic() + LINGER, False
        malformed = environ.get("body.malformed")
        with contextlib.suppress(Exception):  # what `blocks` meets, and the time limit
            sock.settimeout(IDLE)
            if malformed:  # its end is unknown, so the rest cannot be told from requests: this answer is the last
                sock.shutdown(socket.SHUT_WR)
            while not done and time.monotonic() < end:
                done = not (sock.recv if malformed else stream.read)(BLOCK)
        with contextlib.suppress(OSError):
            sock.settimeout(None)
            if malformed or not done:
                sock.shutdown(socket.SHUT_RDWR)

    if sock is not None and (request.content_length or "Transfer-Encoding" in request.headers):
        response.call_on_close(drop)
    return response


def body() -> bytes:
    """Return the whole body.

    Raises:
        Refusal: it is cut (400), longer than MAX_BODY_BYTES (413), or encoded (415).
    """
    limit: int = current_app.config["MAX_BODY_BYTES"]
    too_large = Refusal(413, "body_too_large", f"The body is larger than MAX_BODY_BYTES ({limit} bytes).", limit=limit)
    if (request.content_length or 0) > limit:
        raise too_large
    parts, size = [], 0
    for block in blocks():
        size += len(block)
        if size > limit:
            raise too_large
        parts.append(block)
    return b"".join(parts)


def content_type() -> str:
    """Return the body's media type, without parameters.

    Raises:
        Refusal: it claims a charset other than UTF-8 (415).
    """
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise Refusal(415, "unsupported_type", f"Send text as UTF-8, not as {charset}.")
    return request.mimetype


def fields() -> dict[str, Any]:
    """Return the fields of a form or a JSON object in the body; {} without a body.

    Raises:
        Refusal: anything else (400, 413, 415).
    """
    data = body()
    if not data:
        return {}
    kind = content_type()
    if kind == JSON or (kind == FORM and data.lstrip().startswith(b"{")):
        value = parse_json(data)
        if not isinstance(value, dict):
            raise bad('Send a JSON object, such as {"message": "hello"}.', "bad_json")
        return value
    if kind == FORM:
        return _form(data)
    raise Refusal(
        415, "unsupported_type", f"Content-Type {kind or '(none)'} is not read here; send {JSON} or a form ({FORM})."
    )


def _form(data: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(data.decode(), keep_blank_values=True, errors="strict", max_num_fields=1000)
    except UnicodeDecodeError:
        raise bad("The form is not valid UTF-8.", "bad_utf8") from None
    except ValueError:
        raise bad("The form has more than 1000 fields.", "bad_form") from None
    return _no_duplicates(pairs)


# --- JSON


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON text. Numbers stay as they are written.

    Raises:
        Refusal: invalid UTF-8, invalid JSON, NaN or infinities, duplicate keys, too deep (400).
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise bad(f"The body is not valid UTF-8 (byte {error.start}).", "bad_utf8") from None
    try:
        return _decode(text)
    except RecursionError:
        raise bad(f"The JSON is nested deeper than {DEEPEST}.", "too_deep") from None
    except ValueError as error:
        raise bad(f"The body is not valid JSON: {error}.", "bad_json") from None


def _no_constant(name: str) -> Any:
    raise bad(f"JSON has no {name}.", "bad_json")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        name = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise bad(f"{shown(name)} is given twice.", "duplicate_key")
    return found


_decoder = simplejson.JSONDecoder(
    parse_int=simplejson.RawJSON,
    parse_float=simplejson.RawJSON,
    parse_constant=_no_constant,
    object_pairs_hook=_no_duplicates,
)
_encoder = simplejson.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def compact(value: Any) -> str:
    """Return the JSON text of a value, without white space."""
    text: str = _encoder.encode(value)
    return text


def shown(text: str) -> str:
    """Return text that may hold anything, as it may stand in a sentence: short, on one line, valid UTF-8."""
    return ascii(text[:60])


class _Counted:
    """Stands in front of a hook of the decoder, and refuses a body that calls it too often."""

    def __init__(self, hook: Callable[[Any], Any]) -> None:
        self.hook, self.left = hook, MOST_VALUES

    def __call__(self, given: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            sentence = f"Send up to {MOST_VALUES} numbers or objects at once, or a stream of lines ({NDJSON})."
            raise Refusal(413, "too_many_values", sentence, limit=MOST_VALUES)
        return self.hook(given)


def _decode(text: str) -> Any:
    """Return the value of a JSON text. A body that could keep others waiting for long is counted."""
    if len(text) < MOST_VALUES:
        return _decoder.decode(text)
    number, pairs = _Counted(simplejson.RawJSON), _Counted(_no_duplicates)
    decoder = simplejson.JSONDecoder(
        parse_int=number, parse_float=number, parse_constant=_no_constant, object_pairs_hook=pairs
    )
    return decoder.decode(text)


def _check_depth(value: Any, left: int) -> None:
    if not isinstance(value, (dict, list)):
        return
    if left == 0:
        raise bad(f"The message is nested deeper than {DEEPEST}.", "too_deep")
    if len(value) > current_app.config["MAX_MESSAGE_BYTES"]:
        raise _too_large()  # a value takes a byte at least
    for inner in value.values() if isinstance(value, dict) else value:
        _check_depth(inner, left - 1)


# --- messages


def message_of(value: Any) -> bytes:
    """Return the message that a JSON value stands for.

    A string is itself, {"base64": "..."} is raw bytes, any other value its compact JSON text.

    Raises:
        Refusal: null, empty, lone surrogates, bad base64, too deep (400), larger than MAX_MESSAGE_BYTES (413).
    """
    if value is None:
        raise bad("null is no message.", "empty_message")
    try:
        if isinstance(value, str):
            return checked(value.encode())
        if isinstance(value, simplejson.RawJSON):
            return checked(value.encoded_json.encode())
        if isinstance(value, dict) and list(value) == ["base64"] and isinstance(value["base64"], str):
            return checked(base64.b64decode(value["base64"].encode(), validate=True))
        _check_depth(value, DEEPEST)
        return checked(compact(value).encode())
    except UnicodeEncodeError:
        raise bad("A message holds a lone surrogate, which is no character.", "bad_utf8") from None
    except binascii.Error as error:
        raise bad(f"The base64 is not valid: {error}.", "bad_base64") from None


def checked(message: bytes) -> bytes:
    """Return the message if it is neither empty (400) nor larger than MAX_MESSAGE_BYTES (413)."""
    if not message:
        raise bad("A message must not be empty.", "empty_message")
    if len(message) > current_app.config["MAX_MESSAGE_BYTES"]:
        raise _too_large()
    return message


def _too_large() -> Refusal:
    limit: int = current_app.config["MAX_MESSAGE_BYTES"]
    sentence = f"A message is larger than MAX_MESSAGE_BYTES ({limit} bytes)."
    return Refusal(413, "message_too_large", sentence, limit=limit)


def pushed() -> tuple[list[bytes], bool, dict[str, Any]]:
    """Return the messages to push, whether they were sent as many, and the fields that they came in.

    Raises:
        Refusal: there are none, or one cannot be taken; then none is (400, 413, 415).
    """
    kind = content_type()
    if kind == "application/octet-stream":
        return [checked(body())], False, {}
    if kind == "text/plain":
        return [checked(utf8(body()))], False, {}
    given = fields()
    if "messages" in given and "message" in given:
        raise bad("Send either message or messages, not both.", "bad_message")
    if "messages" in given:
        if not isinstance(given["messages"], list) or not given["messages"]:
            raise bad("messages must be a list of at least one message.", "bad_message")
        if len(given["messages"]) > MOST:
            sentence = f"Send up to {MOST} messages at once, or a stream of lines ({NDJSON})."
            raise Refusal(413, "too_many_messages", sentence, limit=MOST)
        return [message_of(value) for value in given["messages"]], True, given
    if "message" not in given:
        raise bad('There is no message; send a form or JSON with message, such as {"message": "hello"}.', "bad_message")
    return [message_of(given["message"])], False, given


def line_kind() -> str | None:
    """Return what the lines of the body are: "json" for NDJSON, "text" for text with each=line, None for no lines."""
    each = Parameters().text("each")
    if each not in (None, "line"):
        raise bad("each can only be line.", "bad_parameter", parameter="each")
    kind = content_type()
    if kind == NDJSON:
        return "json"
    if each and kind != "text/plain":
        raise Refusal(415, "unsupported_type", "each=line reads text/plain.")
    return "text" if each else None


def utf8(data: bytes) -> bytes:
    """Return the bytes if they are UTF-8 (else 400)."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise bad(
            f"The text is not valid UTF-8 (byte {error.start}); send bytes as application/octet-stream.", "bad_utf8"
        ) from None
    return data


def value_of(message: bytes) -> Any:
    """Return the JSON value for a message: its text, or {"base64": ...} where it is not UTF-8."""
    try:
        return message.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(message).decode()}


def preview_of(head: bytes, size: int, characters: int) -> dict[str, Any]:
    """Return the preview of a message of `size` bytes from its first bytes (4 a character are enough)."""
    for cut in range(min(4, len(head)) if len(head) < size else 1):
        try:
            return {"preview": head[: len(head) - cut].decode()[:characters], "bytes": size}
        except UnicodeDecodeError:
            continue
    return {"preview": value_of(head[:characters]), "bytes": size}


# --- parameters, from the query or from the fields of the body


class Parameters:
    """The parameters of a request: from the query string first, else from the body's fields."""

    def __init__(self, given: dict[str, Any] | None = None) -> None:
        self.given = given or {}

    def text(self, name: str) -> str | None:
        """Return a parameter as text; None where it is not given."""
        values = request.args.getlist(name)
        if len(values) > 1:
            raise bad(f"{name} is given twice.", "duplicate_key")
        if values:
            return values[0]
        value = self.given.get(name)
        if value is None:
            return None
        if isinstance(value, simplejson.RawJSON):
            return str(value.encoded_json)
        if isinstance(value, bool):
            return "1" if value else "0"
        if not isinstance(value, str):
            raise bad(f"{name} must be text or a number.", "bad_parameter", parameter=name)
        return _encodable(value, name)

    def needed(self, name: str) -> str:
        """Return a parameter that must be given (else 400)."""
        text = self.text(name)
        if not text:
            raise bad(f"Send {name}.", "bad_parameter", parameter=name)
        return text

    def number(self, name: str, least: float, most: float, default: float) -> float:
        """Return a number from `least` to `most` (else 400)."""
        text = self.text(name)
        if text is None:
            return default
        try:
            value = float(text) if len(text) <= 20 and text.isascii() and "_" not in text else math.nan
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise bad(f"{name} must be a number from {least:g} to {most:g}.", "bad_parameter", parameter=name)
        return value

    def whole(self, name: str, least: int, most: int, default: int | None = None) -> int | None:
        """Return a whole number from `least` to `most` (else 400)."""
        text = self.text(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= 15 and least <= int(text) <= most):
            raise bad(f"{name} must be a whole number from {least} to {most}.", "bad_parameter", parameter=name)
        return int(text)

    def flag(self, name: str) -> bool:
        """Return whether a flag is on: 1 or true; 0, false or absent is off (else 400)."""
        text = self.text(name)
        if text not in (None, "0", "1", "false", "true"):
            raise bad(f"{name} must be 1 or 0.", "bad_parameter", parameter=name)
        return text in ("1", "true")

    def texts(self, one: str, many: str, most: int) -> list[str]:
        """Return the texts given as `one`, or as the list `many` (JSON, or separated by commas) of up to `most`."""
        single, several = self.text(one), self.given.get(many)
        if many in request.args or isinstance(several, str):
            several = (self.text(many) or "").split(",")
        if (single is None) == (several is None):
            raise bad(f"Send either {one} or {many}.", "bad_parameter", parameter=one)
        found: Iterable[Any] = [single] if several is None else several
        if not isinstance(found, list) or not 0 < len(found) <= most or not all(isinstance(x, str) for x in found):
            raise bad(f"{many} must be a list of 1 to {most} texts.", "bad_parameter", parameter=many)
        return list(dict.fromkeys(_encodable(text, many) for text in found))  # named twice is named once


def _encodable(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise bad(f"{name} holds a lone surrogate, which is no character.", "bad_utf8", parameter=name) from None
    return text
