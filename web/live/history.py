"""The last half hour of each queue, for charts: the numbers of waiting, enqueued and dequeued messages.

It costs Redis nothing. Each process records what it learns about a queue anyway, from answers and from the polls for
event streams, in steps of ten seconds. As for /metrics, each process has its own mapped file: any process can add up
the records of all, and a killed process loses nothing. What no process has seen is unknown.
"""

import contextlib
import math
import mmap
import os
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from web.counters import extend, messages_in, write_all

STEP_SECONDS = 10
MAX_STEPS = 180
MAX_QUEUES = 500  # that a process records
MAX_LISTED = 300  # of which only the depth is recorded, from the list of all queues
KEPT_SECONDS, WATCHED_SECONDS = 10, 120  # since the last record of a queue until another may take its row
MAX_SILENT_STEPS = 6  # between two readings of a depth; what happened between readings further apart is unknown
MAX_INDEX_AGE = 1.0  # seconds until a process notices a queue that another one has begun to record
COUNTING_OPERATIONS = ("push", "count", "all")  # their answers have the number of waiting messages

# A file has a table of names, then a row of cells for each name, one cell per step. It is sparse: rows that are not in
# use take no disk space.
NAME_BYTES = 136  # "/", which is in no name, the name, and zeros
# The numbers of a cell. START: the depth when the step began, derived at the first reading. Until then, times are 0.
# RETAKEN: messages taken that had been taken before. NEXT: stands for the message that was next at the last reading.
CELL_NUMBERS = 10
STEP, PUSHED, TAKEN, START, START_AT, LAST, LAST_AT, MOST, RETAKEN, NEXT = range(CELL_NUMBERS)
ROW_NUMBERS = MAX_STEPS * CELL_NUMBERS
ROWS_START = MAX_QUEUES * NAME_BYTES
FILE_BYTES = ROWS_START + MAX_QUEUES * ROW_NUMBERS * 8


class Step(NamedTuple):
    """One step of a queue: its largest depth, its depth at the end, messages in and out. None: unknown."""

    most: int | None = None
    depth: int | None = None
    enqueued: int | None = None
    dequeued: int | None = None


@dataclass
class Cell:
    """The records of one step, combined from all processes."""

    pushed: int = 0
    taken: int = 0
    start: int = 0
    start_at: float = math.inf
    last: int = 0
    last_at: float = 0
    most: int = 0
    retaken: int = 0
    next: int = 0  # 0: unknown, or none

    def add(self, numbers: Sequence[float]) -> None:
        """Add the record of one process."""
        self.pushed += int(numbers[PUSHED])
        self.taken += int(numbers[TAKEN])
        if 0 < numbers[START_AT] < self.start_at:
            self.start, self.start_at = int(numbers[START]), numbers[START_AT]
        if numbers[LAST_AT] > self.last_at:
            self.last, self.last_at = int(numbers[LAST]), numbers[LAST_AT]
            self.next = int(numbers[NEXT]) or self.next
        self.most = max(self.most, int(numbers[MOST]))
        self.retaken += int(numbers[RETAKEN])


class History:
    """The records of this process, and the history combined from the records of all processes.

    Nothing here blocks, so no greenlet can interrupt another, and no lock is needed.
    """

    def __init__(self, file: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        """Record in a file, beside those of the other processes; without one only in this process."""
        self._clock = clock
        self._file = file
        self._opened = os.open(file, os.O_RDWR | os.O_CREAT, 0o600) if file else -1
        self._map = _map(self._opened)
        self._numbers = memoryview(self._map)[ROWS_START:].cast("d")
        self._free = [row for row in range(MAX_QUEUES) if not self._map[row * NAME_BYTES]]
        self._memo: dict[str, Any] = {}  # see `memo`
        self._steps: dict[str, list[Step]] = {}  # the ended steps of queues; emptied like `_memo`
        self._memo_in = 0  # the step in which these two were begun
        self._others: list[tuple[mmap.mmap, dict[bytes, int]]] = []  # the files of other processes, opened at
        self._opened_at = 0.0
        self._rows: OrderedDict[str, tuple[int, float]] = OrderedDict()  # queue -> row, kept until; least recent first
        for row in set(range(MAX_QUEUES)).difference(self._free):
            name = self._map[row * NAME_BYTES : (row + 1) * NAME_BYTES].strip(b"/\0").decode()
            self._rows[name] = row, 0.0

    def now(self) -> float:
        """Return the time by the clock of the history."""
        return self._clock()

    def current_step(self) -> int:
        """Return the number of the current step."""
        return int(self._clock() // STEP_SECONDS)

    def seconds_left(self) -> float:
        """Return the seconds until the current step ends."""
        return STEP_SECONDS - self._clock() % STEP_SECONDS

    def record_depth(self, queue: str, count: int, watched: bool = False, summary: bytes = b"") -> None:
        """Record the number of waiting messages, and the summary of the next one if it is known.

        If all rows are in use, a `watched` queue takes that of another.
        """
        if cell := self._cell(queue, watched):
            now = self._clock()
            if not cell[START_AT]:
                cell[START], cell[START_AT] = count - cell[PUSHED] + cell[TAKEN], now
                self._steps.pop(queue, None)  # the first reading in a step also shows what happened before it
            cell[LAST], cell[LAST_AT], cell[MOST] = count, now, max(cell[MOST], count)
            if summary or not count:
                cell[NEXT] = number_of(summary)

    def record_listed(self, queue: str, count: int) -> None:
        """Record the depth of a queue in the list of all queues. Those must leave rows to the queues that are used."""
        if queue in self._rows or len(self._free) > MAX_QUEUES - MAX_LISTED:
            self.record_depth(queue, count)

    def add_answer(self, operation: str, queue: str, answer: Any) -> None:
        """Record the numbers in an answer: messages that came in or went out, and messages waiting."""
        event, number = messages_in(operation, answer)
        fields = answer if isinstance(answer, dict) else {}
        is_delayed = operation == "push" and not fields.keys().isdisjoint(("id", "ids"))
        at = {"pushed": PUSHED, "popped": TAKEN, "reserved": TAKEN}.get(event)
        if at and number and not is_delayed and (cell := self._cell(queue)):
            cell[at] += number
            if event == "reserved":
                deliveries = fields.get("messages", [fields])
                cell[RETAKEN] += sum(delivery["deliveries"] > 1 for delivery in deliveries)
        if operation in COUNTING_OPERATIONS and "count" in fields:
            self.record_depth(queue, fields["count"])
        elif fields.get("error") == "empty":
            self.record_depth(queue, 0)

    def steps(self, queue: str, after: int = 0) -> dict[str, Any] | None:
        """Return the steps that have ended since the step `after`, from the first known one on; None if there is none.

        `at` is when the first of them began (Unix time), `step` the seconds of each; the rest are lists with a number
        for each step.
        """
        steps = self._ended_steps(queue)
        first = self._memo_in - len(steps)
        skipped = max(0, after + 1 - first)
        while skipped < len(steps) and steps[skipped] == Step():
            skipped += 1
        if skipped >= len(steps):
            return None
        most, depth, enqueued, dequeued = map(list, zip(*steps[skipped:], strict=True))
        at = (first + skipped) * STEP_SECONDS
        return {"at": at, "step": STEP_SECONDS, "max": most, "count": depth, "in": enqueued, "out": dequeued}

    def cells(self, queue: str, number: int = MAX_STEPS) -> list[Cell]:
        """Return the records of all processes for the last steps, the current one last; [] if there are none."""
        rows = list(self._rows_of(queue))
        now = self.current_step()
        cells = [Cell() for _ in range(number)] if rows else []
        for data, row in rows:
            numbers = memoryview(data)[ROWS_START:].cast("d")[row * ROW_NUMBERS : (row + 1) * ROW_NUMBERS]
            for step, cell in enumerate(cells, now - number + 1):
                at = step % MAX_STEPS * CELL_NUMBERS
                if numbers[at + STEP] == step:
                    cell.add(numbers[at : at + CELL_NUMBERS].tolist())
        return cells

    def memo(self) -> dict[str, Any]:
        """Return a place for what is derived from the steps of a queue that have ended. Each step empties it."""
        if self._memo_in != self.current_step():
            self._memo, self._steps, self._memo_in = {}, {}, self.current_step()
        return self._memo

    def _ended_steps(self, queue: str) -> list[Step]:
        """Return the steps that have ended. They are read once per step, however many streams follow the queue."""
        self.memo()
        if queue not in self._steps:
            self._steps[queue] = derive_steps(self.cells(queue))[:-1]
        return self._steps[queue]

    def _cell(self, queue: str, watched: bool = False) -> "memoryview[float] | None":
        """Return the cell of a queue in the current step; None if there are too many queues."""
        try:
            row = self._row(queue, watched)
        except OSError:  # the disk is full
            return None
        if row is None:
            return None
        step = self.current_step()
        start = row * ROW_NUMBERS + step % MAX_STEPS * CELL_NUMBERS
        cell = self._numbers[start : start + CELL_NUMBERS]
        if cell[STEP] != step:
            for at in range(CELL_NUMBERS):
                cell[at] = step if at == STEP else 0
        return cell

    def _row(self, queue: str, watched: bool) -> int | None:
        """Return the row of a queue. A new one gets a free row, or that of a queue that was not used for long."""
        now, kept_until = self._clock(), 0.0
        if queue in self._rows:
            row, kept_until = self._rows[queue]
        elif self._free:
            row = self._free[0]
            self._begin(row, queue)
            del self._free[0]
        else:
            idle = (name for name, (_, until) in self._rows.items() if watched or until <= now)
            if not (oldest := next(idle, "")):
                return None
            row = self._rows[oldest][0]
            self._begin(row, queue)
            del self._rows[oldest]
        self._rows[queue] = row, max(kept_until, now + (WATCHED_SECONDS if watched else KEPT_SECONDS))
        self._rows.move_to_end(queue)
        return row

    def _begin(self, row: int, queue: str) -> None:
        """Clear a row for a queue.

        Raises:
            OSError: the disk is full.
        """
        zeros = bytes(ROW_NUMBERS * 8)
        if self._file:  # a write to a full disk fails; through the map SIGBUS would end the process
            write_all(self._opened, zeros, ROWS_START + row * len(zeros))
        else:
            self._numbers[row * ROW_NUMBERS : (row + 1) * ROW_NUMBERS] = memoryview(zeros).cast("d")
        self._map[row * NAME_BYTES : (row + 1) * NAME_BYTES] = _entry(queue)

    def _rows_of(self, queue: str) -> Iterator[tuple[mmap.mmap, int]]:
        """Yield the file and the row of each process that records a queue."""
        if queue in self._rows:
            yield self._map, self._rows[queue][0]
        now = self._clock()
        is_new_step = now // STEP_SECONDS != self._opened_at // STEP_SECONDS
        if is_new_step or not 0 <= now - self._opened_at < MAX_INDEX_AGE:
            self._others, self._opened_at = list(self._open_others()), now
        for data, rows in self._others:
            row = rows.get(_entry(queue))
            if row is not None and _name_in(data, row) == _entry(queue):
                yield data, row

    def _open_others(self) -> Iterator[tuple[mmap.mmap, dict[bytes, int]]]:
        """Open the files of the other processes. Yield each with its table of names."""
        for file in self._file.parent.glob("*" + self._file.suffix) if self._file else ():
            with contextlib.suppress(OSError, ValueError):  # it is being made, or cannot be read
                if file != self._file:
                    with file.open("rb") as opened:
                        data = mmap.mmap(opened.fileno(), FILE_BYTES, prot=mmap.PROT_READ)
                    yield data, {_name_in(data, row): row for row in range(MAX_QUEUES) if data[row * NAME_BYTES]}


def derive_steps(cells: Iterable[Cell]) -> list[Step]:
    """Return the steps that follow from the cells.

    The numbers of messages in and out are lower bounds: those that this instance counted, plus those that the depths
    imply. If the depth grows by 10 although 2 in and 1 out were counted, other clients have pushed 9. Between two
    readings, the depth is derived from the first of them and the messages counted since.
    """
    steps: list[Step] = []
    unknown: list[Step] = []  # the steps since the last reading
    guessed: list[Step] = []  # the same steps, which count if the next reading comes soon
    expected: int | None = None  # the depth, if no other client has changed it since the last reading
    for cell in cells:
        pushed, taken = cell.pushed, cell.taken
        if cell.last_at:
            before = cell.start if expected is None else expected
            others = cell.last - (before + pushed - taken)
            steps += unknown if expected is None else guessed
            steps.append(Step(max(cell.most, before), cell.last, pushed + max(0, others), taken + max(0, -others)))
            unknown, guessed, expected = [], [], cell.last
            continue
        unknown.append(Step(enqueued=pushed, dequeued=taken) if pushed or taken else Step())
        if expected is not None:
            before, expected = expected, expected + pushed - taken
            guessed.append(Step(max(0, before, expected), max(0, expected), pushed, taken))
        if len(unknown) > MAX_SILENT_STEPS:
            expected = None
    return steps + unknown


def number_of(summary: bytes) -> int:
    """Return the number that stands for a message in a cell; 0 for b""."""
    return zlib.crc32(summary)


def _entry(queue: str) -> bytes:
    return b"/" + queue.encode().ljust(NAME_BYTES - 1, b"\0")


def _name_in(data: mmap.mmap, row: int) -> bytes:
    return data[row * NAME_BYTES : (row + 1) * NAME_BYTES]


def _map(file: int) -> mmap.mmap:
    if file >= 0:
        extend(file, ROWS_START)  # the table of names gets its space now
        os.truncate(file, FILE_BYTES)
    return mmap.mmap(file, FILE_BYTES)
