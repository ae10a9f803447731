"""All the queues there are, found by a walk through the keys that stops in time."""

import contextlib
import fnmatch
import re
import time
from typing import Any

import redis

from broker.reliable import ReliableQueue
from settings import NAME

LONGEST = 1.0  # seconds of walking; a keyspace that takes longer is answered as far as it was seen
KEPT = 1.0  # seconds an answer is kept
STEP = 1000  # keys in one step

_kept: dict[tuple[str, str], tuple[float, dict[str, Any]]] = {}


def queues(client: Any, prefix: str, match: str, max_deliveries: int) -> dict[str, Any]:
    """Return the queues that match a glob pattern, by name, and whether the walk was `complete`.

    Each is {"name", "count", "reserved", "dead"}. Dead letters are shown with the queue they come from.
    """
    at = (prefix, match)
    if at in _kept and time.monotonic() - _kept[at][0] < KEPT:
        return _kept[at][1]
    names, complete = _names(client, prefix, match)
    found = []
    for start in range(0, len(names), STEP):
        found += _counts([ReliableQueue(client, name, prefix, max_deliveries) for name in names[start : start + STEP]])
    answer = {"queues": found, "complete": complete}
    now = time.monotonic()
    for old in [key for key, (when, _) in _kept.items() if now - when >= KEPT]:
        del _kept[old]
    _kept[at] = now, answer
    return answer


def _counts(some: list[ReliableQueue]) -> list[dict[str, Any]]:
    """Return the counts of those queues that hold something; a key that is no queue is passed over."""
    pipeline = some[0].client.pipeline(transaction=False)
    for queue in some:
        pipeline.llen(queue.key)
        pipeline.zcard(queue.meta + "reserved")
        pipeline.llen(queue.meta + "dead")
    answers = pipeline.execute(raise_on_error=False)
    found = []
    for queue, *counts in zip(some, answers[::3], answers[1::3], answers[2::3], strict=True):
        if not all(isinstance(count, int) for count in counts) or not any(counts):
            continue
        if counts[1]:  # some leases may have run out
            with contextlib.suppress(redis.ResponseError):  # one broken queue must not hide the others
                state = queue.state()
                counts = [state.count, state.reserved, state.dead]
        found.append({"name": queue.name, **dict(zip(("count", "reserved", "dead"), counts, strict=True))})
    return found


def _names(client: Any, prefix: str, match: str) -> tuple[list[str], bool]:
    escaped = re.sub(r"([*?\[\]\\^])", r"\\\1", prefix)
    own = re.compile(r"\{?" + re.escape(prefix) + f"({NAME.pattern})" + r"(?:\}:((?:dead:)*)(?:reserved|dead))?")
    wanted = re.compile(fnmatch.translate(match))
    names: set[str] = set()
    end, cursor = time.monotonic() + LONGEST, 0
    while True:
        cursor, keys = client.scan(cursor, match=f"*{escaped}*", count=STEP)
        for key in keys:
            found = own.fullmatch(key.decode(errors="replace"))
            if found:
                name = found[1] + ".dead" * ((found[2] or "").count(":"))  # dead letters may be reserved, and die again
                if wanted.match(name):
                    names.add(name)
        if cursor == 0 or time.monotonic() > end:
            return sorted(names), cursor == 0
