"""What the operations return. Fields that the server adds in a later version are ignored."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Pushed:
    """`count` is the length of the queue after the push; `id` that of a delayed message, else None."""

    count: int
    id: str | None = None


@dataclass(frozen=True)
class Age:
    """How long the next message has waited, in seconds; `at_least` if it may be any longer."""

    seconds: float
    at_least: bool = False


@dataclass(frozen=True)
class Counts:
    """How many messages of a queue are waiting (`count`), reserved, delayed and dead, and how many clients wait."""

    count: int
    reserved: int
    delayed: int
    dead: int
    waiters: int
    paused: bool
    age: Age | None = None
    name: str | None = None


@dataclass(frozen=True)
class Settled:
    """How many messages were acked, released (`dead` of them became dead letters), extended; `stale` are not held."""

    acked: int = 0
    released: int = 0
    dead: int = 0
    extended: int = 0
    stale: tuple[str, ...] = ()


@dataclass(frozen=True)
class Removed:
    """How many messages were removed, moved or cleared; `undo` is the token for `restore`, None if there was none."""

    count: int
    undo: str | None = None


@dataclass(frozen=True)
class Consumer:
    """Who has reserved messages, or waits for one. `oldest` is how long it has held its oldest message, in seconds."""

    by: str
    reserved: int
    oldest: float | None
    waiting: int


@dataclass(frozen=True)
class Reason:
    """Why messages failed, with # for numbers and <id> for ids. `first` and `last` are Unix time, in seconds."""

    reason: str
    count: int
    first: float
    last: float
    example: str


@dataclass(frozen=True)
class Settings:
    """The limits of a queue; 0 stands for none."""

    at_once: int
    per_second: float
    max_deliveries: int


def parse(kind: type[T], answer: Mapping[str, Any]) -> T:
    """Return the dataclass `kind` of an answer."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in answer.items() if name in names})


def counts_of(answer: Mapping[str, Any]) -> Counts:
    """Return the counts of a queue in an answer."""
    age = answer.get("age")
    return parse(Counts, {**answer, "age": parse(Age, age) if age else None})
