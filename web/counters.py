"""Counters of one instance for /metrics: requests and their duration, messages, Redis errors.

Each process counts in a memory-mapped file of its own, so a count costs half a microsecond and survives a kill. The
master gives a new process the file of one that has ended, so there are never more files than processes. Any process
adds up all files. Of prometheus_client we use only the file format: its multiprocess mode does the same, but takes 9 us
a push instead of 1, leaves two files behind for every process that ever ran, and keeps its counters in module state.
"""

import json
import logging
import os
import struct
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.mmap_dict import MmapedDict

MAX_QUEUES = 500  # queues that a process counts by name; all others are counted together
OTHERS = "(others)"  # the label for all others; not a valid queue name
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # of histograms
BOUNDS = (*map(str, SECONDS), "+Inf")  # the same as labels
FILE_BYTES = 1 << 19  # enough for all events of MAX_QUEUES long names, and for the usual requests; then it is doubled
# Operation -> the event it counts, and the field of its answer with the number; without that field a success is one.
MESSAGES = {
    "push": ("pushed", "pushed"),
    "pop": ("popped", "messages"),
    "reserve": ("reserved", "messages"),
    "ack": ("acked", "acked"),
    "release": ("released", "released"),
}
_EVENTS = {event for event, _ in MESSAGES.values()}

Key = tuple[str, ...]  # the event, and its labels

log = logging.getLogger(__name__)


class Counters:
    """The counts of this process, and the totals of all processes.

    Each count is a number, plus total seconds where durations are measured. Nothing here blocks, so greenlets cannot
    interfere with each other, and no lock is needed.
    """

    def __init__(self, file: Path | None = None) -> None:
        """Count in a file, in a folder with those of the other processes; without a file only in memory.

        Raises:
            OSError: the file cannot be written, or its disk is full.
        """
        self._path = file
        self._file: Any = _File(file) if file else None
        self._counts: dict[Key, _Count] = {}
        for key, number, seconds in _read(file) if file else ():
            self._counts[key] = _Count(json.dumps(key), number, seconds)
        self._is_full = False  # the disk, when a count was begun
        self._names = {key[1] for key in self._counts if key[0] in _EVENTS} - {OTHERS}

    def increment(self, key: Key, number: int = 1, seconds: float = 0.0) -> None:
        """Add to a count. Every request does, so this must be cheap."""
        count = self._counts.get(key) or self._add(key)
        count.number += number
        count.seconds += seconds
        if count.text:
            self._file.write_value(count.text, count.number, count.seconds)

    def _add(self, key: Key) -> "_Count":
        """Begin a count: in the file, or if its disk is full only in memory."""
        count = self._counts[key] = _Count()
        if self._file:
            text = json.dumps(key)
            try:
                self._file.write_value(text, 0.0, 0.0)
                count.text = text
            except OSError as error:
                if not self._is_full:
                    log.warning("Some counts are missing in the /metrics of other processes: %s", error)
                self._is_full = True
        return count

    def count_request(self, operation: str, status: str, seconds: float) -> None:
        """Count a request whose answer began after `seconds`."""
        self.increment(("requests", operation, status, BOUNDS[bisect_left(SECONDS, seconds)]), 1, seconds)

    def count_messages(self, operation: str, queue: str, answer: Any) -> None:
        """Count the messages in an operation's answer: JSON, or a body that is the message itself."""
        event, number = messages_in(operation, answer)
        if not event:
            return
        if queue not in self._names:
            if len(self._names) < MAX_QUEUES:
                self._names.add(queue)
            else:
                queue = OTHERS
        self.increment((event, queue), number)

    def totals(self) -> dict[Key, tuple[float, float]]:
        """Return the counts of all processes together: number and seconds."""
        totals = {key: (count.number, count.seconds) for key, count in self._counts.items()}
        for file in self._path.parent.glob("*" + self._path.suffix) if self._path else ():
            for key, number, seconds in _read(file) if file != self._path else ():
                before = totals.get(key, (0.0, 0.0))
                totals[key] = (before[0] + number, before[1] + seconds)
        return totals


@dataclass(slots=True)
class _Count:
    """One count, and its name in the file; "" if it is only in memory."""

    text: str = ""
    number: float = 0.0
    seconds: float = 0.0


class _File(MmapedDict):
    """A file of counts. Its bytes have space on the disk: SIGBUS ends a process that writes one without."""

    def __init__(self, file: Path) -> None:
        with file.open("ab") as opened:
            extend(opened.fileno(), FILE_BYTES)
        super().__init__(str(file))  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        """Make room for a new count; prometheus_client would only make the file longer.

        Raises:
            OSError: the disk is full.
        """
        while self._used + len(key.encode()) + 32 > os.fstat(self._f.fileno()).st_size:
            extend(self._f.fileno(), 2 * self._capacity)
        super()._init_value(key)  # type: ignore[no-untyped-call]


def extend(file: int, size: int) -> None:
    """Write zeros to the end of an open file, until it has `size` bytes.

    Raises:
        OSError: the disk is full.
    """
    at = os.fstat(file).st_size
    if at < size:
        write_all(file, bytes(size - at), at)


def write_all(file: int, data: bytes, at: int) -> None:
    """Write all bytes at a position of an open file.

    Raises:
        OSError: the disk is full.
    """
    while data:
        written = os.pwrite(file, data, at)
        data, at = data[written:], at + written


def _read(file: Path) -> list[tuple[Key, float, float]]:
    """Return the counts in a file; none if it is being made, is damaged, or cannot be read."""
    try:
        values: Any = MmapedDict.read_all_values_from_file(str(file))  # type: ignore[no-untyped-call]
        return [(tuple(json.loads(text)), number, seconds) for text, number, seconds, _ in values]
    except (OSError, RuntimeError, TypeError, ValueError, struct.error):
        return []


def messages_in(operation: str, answer: Any) -> tuple[str, int]:
    """Return the event that an operation counts and the number of messages in its answer; "" if it counts none."""
    event, field = MESSAGES.get(operation, ("", ""))
    if not event:
        return "", 0
    if not isinstance(answer, dict):
        return event, int(answer.status_code == 200)
    found: Any = answer.get(field, answer.get("success", False))
    return event, len(found) if isinstance(found, list) else int(found)
