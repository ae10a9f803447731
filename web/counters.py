"""What the processes of one server count, for /metrics: requests and their time, messages, errors of Redis.

Each process counts in a mapped file of its own, so counting costs some microseconds, and nothing is lost when the
process is killed. gunicorn.conf.py gives a new process the file of one that has ended: it counts on from there, and
there are never more files than processes. Any process can add up all files.
"""

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client.mmap_dict import MmapedDict

MAX_QUEUES = 500  # queues that a process counts by name; all others are counted together
OTHERS = "(others)"  # the label of those, which cannot be a name
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # of histograms
BOUNDS = (*map(str, SECONDS), "+Inf")  # the same as labels
# Verb -> what it counts, and the field of its answer that says how many; without that field a success is one.
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

    Nothing here waits, so greenlets cannot get in each other's way, and there is no lock.
    """

    def __init__(self, file: Path | None = None) -> None:
        """Count in a file, whose folder has those of the other processes; without one only in this process."""
        self._folder = file and file.parent
        self._file: Any = MmapedDict(str(file)) if file else None  # type: ignore[no-untyped-call]
        self._counts: dict[Key, float] = dict(_read(file)) if file else {}
        self._texts = {key: json.dumps(key) for key in self._counts}
        self._names = {key[1] for key in self._counts if len(key) == 2 and key[0] in _QUEUE_COUNTS} - {OTHERS}

    def add(self, amount: float, *key: str) -> None:
        """Add to a count."""
        count = self._counts[key] = self._counts.get(key, 0.0) + amount
        if self._file:
            text = self._texts.get(key) or self._texts.setdefault(key, json.dumps(key))
            self._file.write_value(text, count, 0.0)

    def add_request(self, verb: str, status: str, seconds: float) -> None:
        """Count a request, whose answer began after some seconds."""
        self.add(1, "requests", verb, status)
        self.add(seconds, "seconds", verb)
        self.add(1, "bucket", verb, BOUNDS[bisect_left(SECONDS, seconds)])

    def add_messages(self, verb: str, queue: str, answer: Any) -> None:
        """Count the messages that a verb's answer tells of: a JSON answer, or a message as the body itself."""
        if verb not in MESSAGES:
            return
        if queue not in self._names:
            if len(self._names) < MAX_QUEUES:
                self._names.add(queue)
            else:
                queue = OTHERS
        event, field = MESSAGES[verb]
        self.add(_number(answer, field), event, queue)

    def totals(self) -> Mapping[Key, float]:
        """Return the counts of all processes together."""
        if not self._folder:
            return dict(self._counts)
        found: Counter[Key] = Counter()
        for file in self._folder.iterdir():
            for key, count in _read(file):
                found[key] += count  # type: ignore[assignment]
        return found


_QUEUE_COUNTS = {event for event, _ in MESSAGES.values()}


def _read(file: Path) -> list[tuple[Key, float]]:
    if not file.exists():
        return []
    values: Any = MmapedDict.read_all_values_from_file(str(file))  # type: ignore[no-untyped-call]
    return [(tuple(json.loads(text)), count) for text, count, *_ in values]


def _number(answer: Any, field: str) -> int:
    found: Any
    if not isinstance(answer, dict):
        return int(answer.status_code == 200)
    found = answer.get(field, answer.get("success", False))
    return len(found) if isinstance(found, list) else int(found)
