"""Who has reserved the messages of a queue, and who waits for one. A consumer names itself with `by`."""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from broker.models import Consumer

MAX_NAMES = 1000  # the most names that one process reports, and that one answer lists


def find_consumers(read: Callable[[Any, Any], list[Any]]) -> tuple[list[Consumer], bool]:
    """Return the consumers, and whether these are all.

    `read(id, deadline)` runs the command `consumers` of show.lua: it returns the reservations after that one.
    """
    found: dict[str, Consumer] = {}
    is_complete = True
    last: list[Any] = ["", ""]
    reports: list[bytes] = []
    while last:
        held, last, first_reports = read(*last)
        reports += first_reports
        for name, reserved, oldest in held:
            reservations = Consumer(reserved=reserved, oldest=oldest / 1000)
            is_complete &= _add(found, name.decode(errors="replace"), reservations)
    for report in reports:
        number, *names = report.decode(errors="replace").split(" ")
        named = {name: int(waiting) for name, waiting in zip(names[::2], names[1::2], strict=True)}
        for name, waiting in {**named, "": int(number) - sum(named.values())}.items():
            is_complete &= not waiting or _add(found, name, Consumer(waiting=waiting))
    oldest_first = sorted(found.values(), key=lambda one: (-(one.oldest or 0), one.by))
    return oldest_first, is_complete


def _add(found: dict[str, Consumer], name: str, more: Consumer) -> bool:
    """Add numbers to those of a consumer; return False if the answer has no room for another one."""
    before = found.get(name)
    if before is None and len(found) >= MAX_NAMES:
        return False
    before = before or Consumer(name)
    ages = [one.oldest for one in (before, more) if one.oldest is not None]
    reserved, waiting = before.reserved + more.reserved, before.waiting + more.waiting
    found[name] = Consumer(name, reserved, max(ages, default=None), waiting)
    return True


def format_names(names: Mapping[str, int]) -> str:
    """Return names with the number of clients that have each, as the script stores them; no name has a space."""
    named = ((name, number) for name, number in names.items() if name)
    return "".join(f" {name} {number}" for name, number in islice(named, MAX_NAMES))
