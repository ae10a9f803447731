"""The operations on any number of messages, in constant memory: push_many, all, export, import_lines, events."""

import json
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

from seequeue.core.messages import Listed, encode, listed, to_field
from seequeue.core.models import Counts, counts_of
from seequeue.core.protocol import (
    MAX_BATCH,
    Chunk,
    Disconnected,
    Emit,
    Next,
    Operation,
    Request,
    Response,
    Server,
    Sleep,
    Stream,
    backoff_of,
    call,
    get,
    log,
    outcome,
    post,
)
from seequeue.core.verbs import count, new_key
from seequeue.errors import OutcomeUnknown, Refused, SeequeueError, Unavailable

BATCH_BYTES = 1 << 20
EVENTS_TIMEOUT = 40.0  # seconds of silence on an event stream, where a comment comes every 15

Progress = Callable[[int, int | None], object]


def push_many(
    client: Server, messages: Iterable[Any] | AsyncIterable[Any], *, progress: Progress | None = None
) -> Operation[int]:
    """Add messages in their order, and return their number. `messages` can be a generator of any length.

    They are sent in batches of up to 1,000 messages and about a MiB, each stored whole and once, also if a connection
    breaks. If one is refused, those of the batches before are stored. `progress(done, total)` is called after each
    batch; `total` is None if `messages` has no length. An AsyncQueue takes an async iterable too.

    Raises:
        Refused: a message is empty, not text that can be encoded, or too large.
        Unavailable, OutcomeUnknown: the server did not answer in time.
    """
    total = len(messages) if isinstance(messages, Sized) else None
    done, size = 0, 0
    batch: list[Any] = []
    source = aiter(messages) if isinstance(messages, AsyncIterable) else iter(messages)
    while True:
        found = list(_next(source)) if isinstance(source, Iterator) else (yield Next(source))
        if found:
            message = encode(found[0])
            if not message:
                raise Refused("empty_message", "A message must not be empty or null.", status=400)
        if batch and (not found or len(batch) == MAX_BATCH or size + len(message) > BATCH_BYTES):
            request = post(client.path("push"), key=new_key(), messages=batch)
            yield from call(client, request)
            done, size, batch = done + len(batch), 0, []
            if progress:
                progress(done, total)
        if not found:
            return done
        batch.append(to_field(message))
        size += len(message)


def _next(source: Iterator[Any]) -> Iterator[Any]:
    """Yield the next item, if there is one."""
    for item in source:
        yield item
        return


def all(  # noqa: A001 (the API's own word)
    client: Server,
    *,
    contains: str | None = None,
    reason: str | None = None,
    offset: int = 0,
    limit: int | None = None,
    details: bool = False,
    progress: Progress | None = None,
) -> Operation[Iterable[Listed]]:
    """Iterate over the waiting messages, the next to be popped first, in constant memory. Nothing is taken.

    `contains` and `reason` search from `offset` on, and set `position`. `details` sets `deliveries`, `reason`, `failed`
    and `died`. `progress(done, total)` is called now and then; `total` is None in a search.

    Raises:
        OutcomeUnknown: the connection broke in the middle; those that came are right.
    """
    is_search = contains is not None or reason is not None
    total = None
    if progress and not is_search:
        total = max(0, (yield from count(client)).count - offset)
        total = total if limit is None else min(total, limit)
    options: dict[str, Any] = {"contains": contains, "reason": reason, "offset": offset or None, "limit": limit}
    request = get(client.path("all"), accept=NDJSON, details=True if details or is_search else None, **options)
    yield from _listing(client, request, total, progress)
    return ()


def reserved(client: Server) -> Operation[Iterable[Listed]]:
    """Iterate over the messages that are reserved now, the earliest deadline first, in constant memory."""
    yield from _listing(client, get(client.path("reserved"), accept=NDJSON))
    return ()


def delayed(client: Server) -> Operation[Iterable[Listed]]:
    """Iterate over the messages that are delayed, the earliest deadline first, in constant memory.

    `settle` can release them (now), extend them (later) or ack them (never) by their `id`.
    """
    yield from _listing(client, get(client.path("delayed"), accept=NDJSON))
    return ()


def export(client: Server) -> Operation[Iterable[bytes]]:
    """Iterate over all messages of the queue and its dead letters, as lines of JSON for `import_lines`.

    Each line has a message and what is known of it: its state, deliveries, reason and times. Nothing is taken.

    Raises:
        OutcomeUnknown: the connection broke in the middle; the lines that came are right.
    """
    yield from _listing(client, get(client.path("export"), accept=NDJSON), convert=bytes)
    return ()


def import_lines(
    client: Server, lines: Iterable[bytes] | AsyncIterable[bytes], *, progress: Progress | None = None
) -> Operation[int]:
    """Add the messages of an `export`, each in the state in which it was, and return their number.

    They are sent in batches of up to 1,000 lines and about a MiB, each stored whole and once, also if a connection
    breaks. `progress(done, total)` is called after each batch; `total` is None if `lines` has no length.

    Raises:
        Refused: a line is not valid; its `answer` has its number, `line` from 1, and those `imported` before it.
        Unavailable, OutcomeUnknown: the server did not answer in time; `answer` has those `imported` before.
    """
    total = len(lines) if isinstance(lines, Sized) else None
    done, sent, size = 0, 0, 0
    batch: list[bytes] = []
    source = aiter(lines) if isinstance(lines, AsyncIterable) else iter(lines)
    while True:
        found = list(_next(source)) if isinstance(source, Iterator) else (yield Next(source))
        line = bytes(found[0]).rstrip(b"\r\n") if found else b""
        if batch and (not found or len(batch) == MAX_BATCH or size + len(line) > BATCH_BYTES):
            headers = {"Content-Type": NDJSON, "Idempotency-Key": new_key()}
            try:
                answer = yield from call(client, Request("POST", client.path("import"), b"\n".join(batch), headers))
            except SeequeueError as error:
                place = {"line": sent + error.answer["line"]} if "line" in error.answer else {}
                error.answer |= {"imported": done, **place}
                raise
            done, sent, size, batch = done + answer["imported"], sent + len(batch), 0, []
            if progress:
                progress(done, total)
        if not found:
            return done
        batch.append(line)
        size += len(line)


NDJSON = "application/x-ndjson"


def _listed(line: bytes) -> Listed:
    return listed(json.loads(line))


def _listing(
    client: Server,
    request: Request,
    total: int | None = None,
    progress: Progress | None = None,
    convert: Callable[[bytes], Any] = _listed,
) -> Operation[None]:
    """Emit the message of each line."""
    done, rest, attempt = 0, b"", 0
    while not isinstance((response := (yield Stream(request))), Response) or response.status != 200:
        yield from _wait(client, outcome(response), attempt)
        attempt += 1
    while True:
        chunk = yield Chunk()
        if isinstance(chunk, Disconnected):
            raise OutcomeUnknown("disconnected", f"The connection broke in the middle of the list: {chunk.cause}")
        *lines, rest = (rest + chunk).split(b"\n") if chunk else (rest,)
        for line in lines:
            yield Emit(convert(line))
        done += len(lines)
        if progress and lines:
            progress(done, total)
        if not chunk:
            if rest:
                raise OutcomeUnknown("disconnected", "The list ended in the middle of a line.")
            return


def _wait(client: Server, error: SeequeueError | dict[str, Any], attempt: int, *, limit: int = 8) -> Operation[None]:
    """Wait before the next try to open a stream; raise an error that does not pass, or did not in `limit` tries."""
    assert isinstance(error, SeequeueError)
    if not isinstance(error, Unavailable | OutcomeUnknown) or attempt >= limit:
        raise error
    if not attempt:
        log.warning("%s does not answer; trying again. %s", client.url, error)
    yield Sleep(backoff_of(attempt))


FOREVER = 1 << 60


def events(client: Server, *, next: int = 20) -> Operation[Iterable[dict[str, Any]]]:
    """Follow the queue: iterate over its state, at once and after every change, until the loop ends.

    Each is a dict with the fields of `count` and `next`, the previews of the first `next` (0 to 20) messages; `next` is
    left out while it is the same as before. While the server is away, it is waited for, with one warning.
    """
    yield from _events(client, get(client.path("events"), timeout=EVENTS_TIMEOUT, next=next), _same)
    return ()


def follow_queues(client: Server, match: str | None = None) -> Operation[Iterable[list[Counts]]]:
    """Follow all queues: iterate over the list that `queues` returns, at once and after every change."""
    known: dict[str, Any] = {}

    def merge(kind: str, data: Mapping[str, Any]) -> list[Counts]:
        if kind == "queues":
            known.clear()
        for name in data.get("removed", ()):
            known.pop(name, None)
        known.update((one["name"], one) for one in data["queues"])
        return [counts_of(known[name]) for name in sorted(known)]

    yield from _events(client, get(f"{client.url}/api/events", timeout=EVENTS_TIMEOUT, match=match), merge)
    return ()


def _same(kind: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
    return data


def _events(client: Server, request: Request, convert: Callable[[str, Any], Any]) -> Operation[None]:
    """Emit each event, and open the stream again when it breaks."""
    attempt = 0
    while True:
        response = yield Stream(request)
        if not isinstance(response, Response) or response.status != 200:
            yield from _wait(client, outcome(response), attempt, limit=FOREVER)
            attempt += 1
            continue
        attempt, rest = 0, b""
        while (chunk := (yield Chunk())) and not isinstance(chunk, Disconnected):
            *blocks, rest = (rest + chunk).split(b"\n\n")
            for block in blocks:
                fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
                kind = fields.get(b"event", b"").decode()
                if kind == "fault":
                    log.warning("%s: %s", client.url, json.loads(fields[b"data"])["message"])
                elif kind:
                    yield Emit(convert(kind, json.loads(fields[b"data"])))
        yield Sleep(backoff_of(attempt))
