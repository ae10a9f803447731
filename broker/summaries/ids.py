"""Lists of ids: the body of each job is in another key. Only the key of a list tells that it has ids, except saq's."""

import re

from broker.summaries.parts import Summary, summary

MAX_ID = 200  # characters

# shape, key of the list and an id, and the command that reads the body
_LISTS = [
    ("bull", r"(\{?bull\}?:[^:]+):(?:wait|active|paused) (.+)", "HGETALL {0}:{1}"),
    ("rq", r"rq:queue:[^:]+ (.+)", "HGETALL rq:job:{0}"),
    ("bee-queue", r"(bq:[^:]+):(?:waiting|active) (.+)", "HGET {0}:jobs {1}"),
    ("asynq", r"(asynq:\{[^}]+\}):(?:pending|active) (.+)", "HGET {0}:t:{1} msg"),
    ("dramatiq", r"(dramatiq:[^:]+) (.+)", "HGET {0}.msgs {1}"),
    ("saq", r"[\s\S]* (saq:job:.+)", "GET {0}"),
]
_PATTERNS = [(shape, re.compile(pattern), command) for shape, pattern, command in _LISTS]


def summarize(message: bytes, key: str) -> Summary | None:
    """Return the summary of an id in the list at `key`: how to read the body."""
    id = message[: MAX_ID + 1].decode(errors="replace")
    if len(id) > MAX_ID or not id.isprintable() or " " in id:
        return None
    for shape, pattern, command in _PATTERNS:
        if found := pattern.fullmatch(f"{key} {id}"):
            read = command.format(*found.groups())
            return summary(shape, f"id → {read}", id=id, read=read)
    return None
