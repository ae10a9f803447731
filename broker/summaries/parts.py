"""What all shapes share: the summary itself, and how names, arguments, times and JSON become one."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

MAX_TEXT = 500  # characters of a summary
MAX_FACT = 200  # characters of a fact
MAX_PARSED = 1 << 16  # characters of JSON that are parsed, besides long strings
MAX_MEMBERS = 100  # members of a large object that are read
MAX_EXACT = 1 << 53  # integers beyond are not exact in JavaScript

TIMES = frozenset({"created", "due", "enqueued", "expires", "failed", "time"})  # facts in Unix seconds

Fact = str | int | float | bool
Object = Mapping[str, Any]

_OPENING, _COLON, _NEXT = (re.compile(rf"\s*{mark}\s*") for mark in (r"\{", ":", "([,}])"))
_decoder, _encoder = json.JSONDecoder(), json.JSONEncoder(ensure_ascii=False)


@dataclass(frozen=True)
class Summary:
    """What a message is to its program: `text` for a row, and facts by name. Times are Unix seconds (`TIMES`).

    A time without a time zone is text, as it is in the message.
    """

    shape: str
    text: str
    facts: dict[str, Fact] = field(default_factory=dict)


def summary(shape: str, text: str, **facts: object) -> Summary:
    """Return a summary with the facts that are plain values, text and facts cut to their limits."""
    known = {name: plain for name, value in facts.items() if (plain := _plain(value)) is not None}
    return Summary(shape, _encodable(cut(text, MAX_TEXT)), known)


def call(name: str, args: object, kwargs: object = None) -> str:
    """Return a call as text: `t.charge(4, amount=6.0)`. Arguments that are not known are "…"."""
    if not isinstance(args, list):
        return f"{name}(…)"
    named = kwargs.items() if isinstance(kwargs, dict) else ()
    shown = [as_text(args)[1:-1], *(f"{key}={as_text(value)}" for key, value in named)]
    return f"{name}({', '.join(filter(None, shown))})"


def as_text(value: object) -> str:
    """Return a JSON value as text."""
    return _encoder.encode(value)


def cut(text: str, characters: int) -> str:
    """Return a text of at most so many characters, with "…" at its end if some are missing."""
    return text if len(text) <= characters else text[: characters - 1] + "…"


def time_of(value: object) -> float | str | None:
    """Return a time in Unix seconds: from seconds, milliseconds or ISO 8601. A local time stays text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if abs(value) < 1e11 else value / 1000 if abs(value) < 1e14 else None
    if not isinstance(value, str):
        return None
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        return None
    return when.timestamp() if when.tzinfo else value


def member(value: object, name: str) -> Any:
    """Return a member of what should be an object; None if it is not, or has none."""
    return value.get(name) if isinstance(value, dict) else None


def joined(values: object) -> str | None:
    """Return the texts of a list as one."""
    return ", ".join(value for value in values if isinstance(value, str)) if isinstance(values, list) else None


def read_object(text: str, is_whole: bool) -> Object:
    """Return the members of a JSON object; of one that is cut or large, those that can be read from its head, and "…".

    Raises:
        ValueError: it is not a JSON object.
        RecursionError: it is nested too deeply.
    """
    if is_whole and len(text) <= MAX_PARSED:
        whole = json.loads(text)
        return whole if isinstance(whole, dict) else {}
    members: dict[str, Any] = {}
    mark, budget = _OPENING.match(text), MAX_PARSED
    while mark and len(members) < MAX_MEMBERS:
        name, end = _decode(text, mark.end(), budget)
        if not isinstance(name, str) or not (mark := _COLON.match(text, end)):
            break
        value, end = _decode(text, mark.end(), budget)
        budget -= 0 if isinstance(value, str) else end - mark.end()
        if mark := _NEXT.match(text, end):
            members[name] = value
            if mark[1] == "}":
                return members
    return {**members, "…": "…"}


def _decode(text: str, at: int, budget: int) -> tuple[Any, int]:
    """Return the JSON value at a position, and where it ends; None if it is cut, or more than `budget` characters."""
    try:
        if text[at : at + 1] == '"':
            return _decoder.raw_decode(text, at)
        value, length = _decoder.raw_decode(text[at : at + budget])
    except ValueError:
        return None, len(text)
    return value, at + length


def _plain(value: object) -> Fact | None:
    if isinstance(value, str):
        return _encodable(cut(value, MAX_FACT)) or None
    if isinstance(value, int):
        return value if abs(value) < MAX_EXACT else None
    return value if isinstance(value, float) and math.isfinite(value) else None


def _encodable(text: str) -> str:
    """Return a text that is valid UTF-8: JSON can hold half a surrogate pair."""
    return text.encode(errors="replace").decode()
