"""What the processes of one server count, for /metrics: requests and their time, messages, errors of Redis.

Each process counts in a mapped file of its own, so counting costs some microseconds, and nothing is lost when the
process is killed. gunicorn.conf.py gives a new process the file of one that has ended: it counts on from there, and
there are never more files than processes. Any process can add up all files.
"""

import json
from bisect import bisect_left
from pathlib import Path
from typing import Any

from prometheus_client.mmap_dict import MmapedDict

MAX_QUEUES = 500  # queues that a process counts by name; all others are counted together
OTHERS = "(others)"  # the label of those, which cannot be a name
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # of histograms
BOUNDS = (*map(str, SECONDS), "+Inf")  # the same as labels
# Operation -> what it counts, and the field of its answer with the number; without that field a success is one.
MESSAGES = {
    "push": ("pushed", "pushed"),
    "pop": ("popped", "messages"),
    "reserve": ("reserved", "messages"),
    "ack": ("acked", "acked"),
    "release": ("released", "released"),
}

Key = tuple[str, ...]  # what is counted, and its labels


class Counters:
    """The counts of this process, and the sum of those of all.

    A count has a number and seconds, for what takes time. Nothing here waits, so greenlets cannot get in each other's
    way, and there is no lock.
    """

    def __init__(self, file: Path | None = None) -> None:
        """Count in a file, whose folder has those of the other processes; without one only in this process."""
        self._path = file
        self._file: Any = MmapedDict(str(file)) if file else None  # type: ignore[no-untyped-call]
        self._counts = {key: _Count(key, *values) for key, *values in _read(file)} if file else {}
        self._names = {key[1] for key in self._counts if key[0] in _QUEUE_COUNTS} - {OTHERS}

    def add(self, key: Key, number: int = 1, seconds: float = 0.0) -> None:
        """Add to a count. Every request does, so this must cost little."""
        count = self._counts.get(key) or self._counts.setdefault(key, _Count(key, 0.0, 0.0))
        count.number += number
        count.seconds += seconds
        if self._file is not None:
            self._file.write_value(count.text, count.number, count.seconds)

    def add_request(self, operation: str, status: str, seconds: float) -> None:
        """Count a request, whose answer began after some seconds."""
        self.add(("requests", operation, status, BOUNDS[bisect_left(SECONDS, seconds)]), 1, seconds)

    def add_messages(self, operation: str, queue: str, answer: Any) -> None:
        """Count the messages in the answer of an operation: JSON, or a message as the body itself."""
        event, number = messages_in(operation, answer)
        if not event:
            return
        if queue not in self._names:
            if len(self._names) < MAX_QUEUES:
                self._names.add(queue)
            else:
                queue = OTHERS
        self.add((event, queue), number)

    def totals(self) -> dict[Key, tuple[float, float]]:
        """Return the counts of all processes together: number and seconds."""
        if not self._path:
            return {key: (count.number, count.seconds) for key, count in self._counts.items()}
        found: dict[Key, tuple[float, float]] = {}
        for file in self._path.parent.glob("*" + self._path.suffix):
            for key, number, seconds in _read(file):
                before = found.get(key, (0.0, 0.0))
                found[key] = (before[0] + number, before[1] + seconds)
        return found


class _Count:
    """One count, and its name in the file."""

    __slots__ = ("number", "seconds", "text")

    def __init__(self, key: Key, number: float, seconds: float) -> None:
        self.text = json.dumps(key)
        self.number = number
        self.seconds = seconds


_QUEUE_COUNTS = {event for event, _ in MESSAGES.values()}


def _read(file: Path) -> list[tuple[Key, float, float]]:
    if not file.exists():
        return []
    values: Any = MmapedDict.read_all_values_from_file(str(file))  # type: ignore[no-untyped-call]
    return [(tuple(json.loads(text)), number, seconds) for text, number, seconds, _ in values]


def messages_in(operation: str, answer: Any) -> tuple[str, int]:
    """Return what the answer of an operation counts and the number of messages; "" where it counts none."""
    event, field = MESSAGES.get(operation, ("", ""))
    if not event:
        return "", 0
    if not isinstance(answer, dict):
        return event, int(answer.status_code == 200)
    found: Any = answer.get(field, answer.get("success", False))
    return event, len(found) if isinstance(found, list) else int(found)
