"""Random sequences of all operations, on Valkey and on a model in plain Python, which must agree after every step.

What Valkey holds is read by plain commands, which change nothing: the order of each list, each reservation with its
time left, the history of messages that came back, and all keys. MODEL_EXAMPLES sets the number of random sequences;
without it the sequences are always the same.
"""

import itertools
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from broker.connections.connection import connect
from broker.models import (
    Ack,
    Conflict,
    Delivery,
    Details,
    Exported,
    Extend,
    LeaseExpired,
    NotFound,
    Pushed,
    QueueCounts,
    QueueSettings,
    Release,
    Settled,
)
from broker.queue import ReliableQueue
from broker.scan import iter_messages
from RedisQueue import RedisQueue
from tests.servers import Store

MAX_DELIVERIES = 3
UNIT_SECONDS = 1000  # the model's unit of time, so long that the time the test takes does not count
RANDOM_EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", 0))


@dataclass
class Reservation:
    """A message that is reserved or delayed."""

    message: bytes
    deliveries: int
    units_left: int  # until the lease or the delay ends
    order: int  # its place among all reservations
    deadline: float = 0  # as Valkey has it: messages that are due in the same unit are in this order
    reason: str = "lease expired"  # of its last failure
    by: str = ""  # who reserved it

    def is_new(self) -> bool:
        return self.deliveries == 0

    def is_due(self) -> bool:
        return self.units_left <= 0


@dataclass
class Model:
    """A queue as the contract describes it. In every list the message that is popped next comes first."""

    dead: "Callable[[], Model]"
    waiting: list[bytes] = field(default_factory=list)
    redeliveries: list[tuple[bytes, int, str]] = field(default_factory=list)  # message, deliveries, reason; last: front
    reserved: dict[str, Reservation] = field(default_factory=dict)
    delayed: dict[str, Reservation] = field(default_factory=dict)
    failure_reasons: dict[bytes, tuple[int, int, str]] = field(default_factory=dict)  # -> number, deliveries, reason
    results: dict[str, bytes] = field(default_factory=dict)
    paused: bool = False
    acked: set[str] = field(default_factory=set)
    answers: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # Idempotency-Key -> request, answer
    cleared: dict[str, list[bytes]] = field(default_factory=dict)
    waiters: dict[str, tuple[int, str]] = field(default_factory=dict)  # process -> number, who
    settings: QueueSettings = field(default_factory=QueueSettings)
    histories: dict[str, dict[bytes, Any]] = field(default_factory=dict)  # of `cleared` -> message -> entry, reason

    def push(self, messages: Sequence[bytes], front: bool) -> int:
        if front:
            self.waiting[:0] = messages
            self.redeliveries += [(message, 0, "") for message in reversed(messages)] if self.redeliveries else []
        else:
            self.waiting += messages
        return len(self.waiting)

    def push_with_history(self, messages: Sequence[tuple[bytes, int, str]]) -> None:
        """Add messages with their deliveries and failures to the back. Each in front of them has a history too."""
        with_history = [at for at, (_, deliveries, reason) in enumerate(messages) if deliveries or reason]
        if with_history:
            if not self.waiting:
                self.redeliveries.clear()
            new = [(message, 0, "") for message in self.waiting[len(self.redeliveries) :]]
            self.redeliveries[:0] = reversed([*new, *messages[: with_history[-1] + 1]])
        self.push([message for message, *_ in messages], front=False)

    def once(self, key: str, request: Any, operation: Callable[[], Any]) -> Any:
        """Run an operation for an Idempotency-Key, or return the answer that was saved for it."""
        if key in self.answers:
            known_request, answer = self.answers[key]
            if known_request != request:
                raise Conflict
            return answer
        if answer := operation():
            self.answers[key] = request, answer
        return answer

    def place_of(self, id: str) -> dict[str, Reservation]:
        return self.delayed if id.endswith("-d") else self.reserved

    def in_flight(self) -> dict[str, Reservation]:
        return self.reserved | self.delayed

    def alive(self) -> set[str]:
        return {id for id, each in self.in_flight().items() if not each.is_due()}

    def return_due(self) -> None:
        due = sorted((id for id, each in self.delayed.items() if each.is_due()), key=self.due)
        self.return_messages([id for id, each in self.reserved.items() if each.is_due()] + due, set())

    def due(self, id: str) -> tuple[float, str]:
        return self.delayed[id].deadline, id

    def return_messages(self, ids: Sequence[str], bury: set[str], unstarted: Set[str] = frozenset()) -> int:
        """Put messages to the front, the oldest foremost, or behind the dead letters, the oldest first.

        Those that were never delivered go to the back, in the order of `ids`. The delivery of `unstarted` ones is not
        counted.
        """
        dead = {id for id in ids if id in bury or (id in self.reserved and self.is_last(id) and id not in unstarted)}
        ended = {id: self.place_of(id).pop(id) for id in dict.fromkeys(ids)}
        self.waiting += [each.message for id, each in ended.items() if each.is_new() and id not in dead]
        ordered = sorted(ended, key=lambda id: ended[id].order)
        returned = [ended[id] for id in ordered if id not in dead and not ended[id].is_new()]
        self.waiting[:0] = [each.message for each in returned]
        for id in unstarted:
            ended[id].deliveries -= 1
        self.redeliveries += [(each.message, each.deliveries, each.reason) for each in reversed(returned)]
        for id in ordered:
            if id in dead:
                before = (self.take_failure_reason(ended[id].message) or (0, ""))[0]
                self.dead().bury(ended[id].message, ended[id].deliveries + before, ended[id].reason)
        return len(dead)

    def is_last(self, id: str) -> bool:
        return self.reserved[id].deliveries >= (self.settings.max_deliveries or MAX_DELIVERIES)

    def bury(self, message: bytes, deliveries: int, reason: str) -> None:
        """Add a dead letter to this queue; equal ones share the latest failure reason."""
        self.waiting.append(message)
        self.add_failure_reason(message, deliveries, reason)

    def add_failure_reason(self, message: bytes, deliveries: int, reason: str) -> None:
        self.failure_reasons[message] = self.failure_reasons.get(message, (0,))[0] + 1, deliveries, reason

    def take_failure_reason(self, message: bytes) -> tuple[int, str] | None:
        """Return the deliveries and the reason of a dead letter that leaves."""
        if message not in self.failure_reasons:
            return None
        number, deliveries, reason = self.failure_reasons.pop(message)
        if number > 1:
            self.failure_reasons[message] = number - 1, deliveries, reason
        return deliveries, reason

    def remove_failure_reasons(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            self.take_failure_reason(message)

    def hand_over(self, to: "Model", messages: Sequence[bytes]) -> list[bool]:
        """Move messages that have left to the back of a queue; return whether each had a failure reason."""
        known = [self.take_failure_reason(message) for message in messages]
        to.push(messages, front=False)
        for message, record in zip(messages, known, strict=True):
            if record:
                to.add_failure_reason(message, *record)
        return [record is not None for record in known]

    def history(self, message: bytes, deliveries: int, reason: str) -> tuple[int, str]:
        """Return all deliveries of a message and its last reason, from those since it joined this queue."""
        _, before, why = self.failure_reasons.get(message, (0, 0, ""))
        return deliveries + before, reason or why

    def remove_redeliveries(self, messages: Sequence[bytes]) -> list[int]:
        """Remove the history of messages that left the front; return the number of their deliveries.

        Of equal messages the one that came back last counts as foremost. When a message leaves that never came back,
        all that did have left before it.
        """
        deliveries = []
        for message in messages:
            at = self.find_redelivery(message, 1)
            deliveries.append(0 if at is None else self.redeliveries[at][1])
            del self.redeliveries[at or 0 :]
        if not self.waiting:
            self.redeliveries.clear()
        return deliveries

    def find_redelivery(self, message: bytes, number: int) -> int | None:
        """Return the index of the n-th of equal messages in `redeliveries`, counted from the foremost."""
        found = [at for at, (each, *_) in enumerate(self.redeliveries) if each == message]
        return found[-number] if len(found) >= number else None

    def pop_up_to(self, max: int) -> list[bytes]:
        taken, self.waiting[:] = self.waiting[:max], self.waiting[max:]
        return taken

    def allowed(self, max: int) -> int:
        """Return how many of `max` messages the settings allow to be taken."""
        if not self.settings.at_once:
            return max
        return min(max, self.settings.at_once - min(self.settings.at_once, len(self.reserved)))

    def pop(self, max: int) -> list[bytes]:
        if self.paused:
            return []
        return self.take(self.allowed(max))

    def take(self, max: int) -> list[bytes]:
        """Take messages for good, paused or not."""
        self.remove_redeliveries(taken := self.pop_up_to(max))
        self.remove_failure_reasons(taken)
        return taken

    def details(self) -> list[tuple[int, str]]:
        """Return the deliveries and the failure reason of each waiting message."""
        found, left = [], self.redeliveries[::-1]
        for message in self.waiting:
            at = next((at for at, (each, *_) in enumerate(left) if each == message), None)
            known = (0, "") if at is None else left[at][1:]
            left = [] if at is None else left[at + 1 :]
            found.append(self.history(message, *known))
        return found

    def find(self, text: bytes) -> list[int]:
        return [at for at, message in enumerate(self.waiting) if text in message]

    def raise_if_expired(self, ids: Sequence[str], acked: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        if expired := [id for id in ids if id not in self.alive() | acked]:
            raise LeaseExpired(expired)

    def ack(self, ids: Sequence[str]) -> int:
        self.raise_if_expired(list(dict.fromkeys(ids)), self.acked)
        for id in ids:
            if one := self.place_of(id).pop(id, None):
                self.remove_failure_reasons([one.message])
            self.acked.add(id)
        return len(set(ids))

    def ack_with(self, id: str, job: str, result: bytes) -> None:
        self.ack([id])
        self.results[job] = result

    def release(self, ids: Sequence[str], delay: int, bury: bool, reason: str) -> int:
        self.raise_if_expired(list(dict.fromkeys(ids)))
        return self.release_each([(id, delay, bury) for id in dict.fromkeys(ids)], reason)

    def release_each(self, items: Sequence[tuple[str, int, bool]], reason: str) -> int:
        unstarted = {id for id, delay, bury in items if delay < 0 and not bury and id in self.reserved}
        for id, delay, bury in items:
            if bury or id in self.reserved:
                self.in_flight()[id].reason = "" if id in unstarted else reason
            if id in self.delayed and not bury:
                self.delayed[id].units_left = max(delay, 0)
            elif delay > 0 and not bury and not self.is_last(id):
                self.delayed[id + "-d"] = self.reserved.pop(id)
                self.delayed[id + "-d"].units_left = delay
        now = [id for id, _, bury in items if id in self.in_flight() and (bury or id in self.reserved)]
        due = sorted(id for id, each in self.delayed.items() if each.is_due() and id not in now)
        return self.return_messages(now + due, {id for id, _, bury in items if bury}, unstarted)

    def settle(
        self, acks: Sequence[str], releases: Sequence[tuple[str, int, bool]], extends: Sequence[str], lease: int
    ) -> Settled:
        """Settle each for itself. The first of `acks` has a result, and all releases a job that fails."""
        stale: list[str] = []
        left, acked_before = self.alive(), set(self.acked)

        def is_held(id: str, others: Set[str] = frozenset()) -> bool:
            held = id in left or id in others
            left.discard(id)
            stale.extend([] if held else [id])
            return held

        acked = [(number, id) for number, id in enumerate(acks) if is_held(id, acked_before)]
        released = [item for item in releases if is_held(item[0])]
        extended = [id for id in extends if is_held(id)]
        for number, id in acked:
            self.ack([id])
            self.results |= {"j1": b"done"} if number == 0 else {}
        for id in extended:
            self.in_flight()[id].units_left = lease
        dead = self.release_each(released, "why")
        self.results |= {"j2": b"why"} if dead else {}
        return Settled(len(acked), len(released), dead, len(extended), stale)

    def extend(self, id: str, lease: int) -> None:
        self.raise_if_expired([id])
        self.in_flight()[id].units_left = lease

    def take_at(self, position: int, message: bytes) -> None:
        if self.waiting[position : position + 1] != [message]:
            raise NotFound
        at = self.find_redelivery(message, self.waiting[: position + 1].count(message))
        if at is not None:
            del self.redeliveries[at]
        del self.waiting[position]

    def remove(self, position: int, message: bytes) -> None:
        self.take_at(position, message)
        self.remove_failure_reasons([message])

    def take_many(self, positions: Sequence[int]) -> tuple[list[bytes], dict[bytes, Any]]:
        """Remove the messages at ascending positions; return them and their history, that of equal ones the first's."""
        found, history = [self.waiting[at] for at in positions], dict[bytes, Any]()
        for at, message in zip(reversed(positions), reversed(found), strict=True):
            entry, reason = None, self.failure_reasons.get(message)
            index = self.find_redelivery(message, self.waiting[: at + 1].count(message))
            if index is not None:
                entry = self.redeliveries.pop(index)
            before = history.get(message, (None, None))
            if entry or reason:
                history[message] = entry or before[0], reason or before[1]
            del self.waiting[at]
        return found, history

    def restore(self, undo: str) -> int:
        if undo not in self.cleared:
            raise NotFound
        messages, history = self.cleared.pop(undo), self.histories.pop(undo, {})
        for message in reversed(messages):
            entry, reason = history.get(message, (None, None))
            if reason:
                number = self.failure_reasons.get(message, (0,))[0]
                self.failure_reasons[message] = number + 1, *reason[1:]
            if entry or self.redeliveries:
                self.redeliveries.append(entry or (message, 0, ""))
            self.waiting.insert(0, message)
        return len(messages)


@dataclass
class Stored:
    """What Valkey holds of a queue. The lifetime of a key that does not expire, or does not exist, is below zero."""

    waiting: list[bytes]
    bodies: dict[bytes, bytes]
    leases: list[tuple[bytes, float]]
    delays: list[tuple[bytes, float]]
    redeliveries: list[bytes]
    failure_reasons: dict[bytes, bytes]
    none_ends_before: int  # of the clock; 0 if there is none
    lifetimes: set[int]
    cleared: dict[str, list[bytes]]


def digest_of(message: bytes) -> str:
    return sha1(message).hexdigest()[:20]


def outcome(operation: Callable[[], Any]) -> Any:
    """Return what an operation returns, or the name of the error that it raises."""
    try:
        return operation()
    except LeaseExpired as expired:
        return "lease expired", expired.ids
    except NotFound:
        return "not found"
    except Conflict:
        return "conflict"


JOBS, DEAD, OTHER = "jobs", "jobs.dead", "other"
QUEUES = st.sampled_from([JOBS, JOBS, JOBS, DEAD, OTHER])
MESSAGES = st.lists(st.sampled_from([b"a", b"b", b"2,1", b"\x00:\xff"]), min_size=1, max_size=4)
KEYS = st.sampled_from(["k1", "k2"])
STATES = st.sampled_from(["waiting", "waiting", "reserved", "delayed", "dead"])
IMPORTED = st.tuples(STATES, MESSAGES.map(min), st.integers(0, 2), st.booleans())
NAMES = st.sampled_from(["", "w1", "w2"])
MAX = st.integers(1, 4)
LEASES = st.integers(1, 3)
PICKS = st.lists(st.integers(0, 7), min_size=1, max_size=3)  # which of the ids so far, 0 the latest; 7 is an unknown id
DELAYS = st.integers(-1, 2)  # of a release; -1: unstarted, unless it is to be buried
RELEASES = st.lists(st.tuples(st.integers(0, 7), DELAYS, st.booleans()), max_size=3)

_numbers = itertools.count()


class EveryOperation(RuleBasedStateMachine):
    client: Any  # a subclass sets it

    def __init__(self) -> None:
        super().__init__()
        self.mark = f"-{next(_numbers)}-"  # in the names of the queues of this sequence only
        self.models: dict[str, Model] = {}
        self.ids: dict[str, list[str]] = defaultdict(list)
        self.undos: list[str] = ["none"]
        self.orders = itertools.count()
        self.pushed: Counter[bytes] = Counter()
        self.taken: Counter[bytes] = Counter()

    def queue(self, q: str) -> ReliableQueue:
        return ReliableQueue(self.client, self.mark + q, max_deliveries=MAX_DELIVERIES)

    def model(self, q: str) -> Model:
        if q not in self.models:
            self.models[q] = Model(lambda: self.model(q + ".dead"))
        return self.models[q]

    def up_to_date(self, q: str) -> Model:
        """Return the model of a queue for an operation that returns due messages first."""
        self.model(q).return_due()
        return self.model(q)

    def pick_ids(self, q: str, picks: list[int]) -> list[str]:
        known = self.ids[q]
        return [known[-1 - pick % len(known)] if known and pick < 7 else "1-none" for pick in picks]

    @rule(q=QUEUES, messages=MESSAGES, front=st.booleans())
    def push(self, q: str, messages: list[bytes], front: bool) -> None:
        assert self.queue(q).push(*messages, front=front) == self.model(q).push(messages, front)
        self.pushed.update(messages)

    @rule(q=QUEUES, key=KEYS, messages=MESSAGES, front=st.booleans())
    def push_once(self, q: str, key: str, messages: list[bytes], front: bool) -> None:
        model = self.model(q)
        known = key in model.answers
        real = outcome(lambda: self.queue(q).push_once(key, messages, front))
        expected = outcome(lambda: model.once(key, ("push", front, messages), lambda: model.push(messages, front)))
        assert real == (expected if expected == "conflict" else Pushed(expected, [], known))
        self.pushed.update([] if known else messages)

    @rule(q=QUEUES, messages=MESSAGES, delay=LEASES, key=st.none() | KEYS)
    def push_later(self, q: str, messages: list[bytes], delay: int, key: str | None) -> None:
        model = self.model(q)
        known = key in model.answers

        def push() -> tuple[str, int]:
            return "pushed later", len(model.waiting)

        request = ("later", delay, messages)
        real = outcome(lambda: self.queue(q).push_later(delay * UNIT_SECONDS, messages, key))
        expected = outcome(lambda: model.once(key, request, push) if key else push())
        if expected == "conflict":
            assert real == "conflict"
            return
        assert (real.count, len(real.ids), real.is_repeated) == (expected[1], len(messages), known)
        if known:
            return
        for id, message in zip(real.ids, messages, strict=True):
            self.ids[q].append(id)
            model.delayed[id] = Reservation(message, 0, delay, next(self.orders))
        self.pushed.update(messages)

    @rule(q=QUEUES, messages=st.lists(IMPORTED, min_size=1, max_size=4))
    def import_messages(self, q: str, messages: list[tuple[str, bytes, int, bool]]) -> None:
        model, exported, waiting = self.model(q), list[Exported](), list[tuple[bytes, int, str]]()
        now = self.client.time()[0]
        for state, message, deliveries, has_died in messages:
            reason = "b: c" if deliveries else ""
            details = Details(deliveries, 1.0 if deliveries else None, reason, 1.0 if has_died else None)
            exported.append(Exported(message, state, details, now + 2 * UNIT_SECONDS - 1))
            if has_died:
                place = model.dead() if state == "dead" else model
                place.add_failure_reason(message, deliveries, reason)
            if state == "dead":
                model.dead().push([message], front=False)
            elif state != "delayed":
                waiting.append((message, 0 if has_died else deliveries, reason))
        ids = iter(self.queue(q).import_messages(exported).ids)
        for state, message, deliveries, _ in messages:
            if state == "delayed":
                self.ids[q].append(id := next(ids))
                model.delayed[id] = Reservation(message, deliveries, 2, next(self.orders), reason="b: c")
        model.push_with_history(waiting)
        self.pushed.update(message for _, message, *_ in messages)

    @rule(q=QUEUES)
    def push_once_again(self, q: str) -> None:
        """Repeat what was pushed with a key."""
        for key, (request, answer) in self.model(q).answers.items():
            if request[0] == "push":
                assert self.queue(q).push_once(key, request[2], request[1]) == Pushed(answer, [], True)

    @rule(q=QUEUES, max=MAX)
    def pop(self, q: str, max: int) -> None:
        taken = self.queue(q).pop(max)
        assert taken == self.up_to_date(q).pop(max)
        self.taken.update(taken)

    @rule(q=QUEUES, max=MAX)
    def pop_by_another_client(self, q: str, max: int) -> None:
        """The history of a message that another client pops is kept until one behind it is taken."""
        taken = RedisQueue.pop(self.queue(q), max)
        assert taken == self.model(q).pop_up_to(max)
        self.taken.update(taken)

    @rule(q=QUEUES, key=KEYS, max=MAX)
    def pop_once(self, q: str, key: str, max: int) -> None:
        model = self.up_to_date(q)
        known = key in model.answers
        real = outcome(lambda: self.queue(q).pop_batch(max, idempotency_key=key))
        expected = outcome(lambda: model.once(key, ("pop", max), lambda: model.pop(max)))
        if expected == "conflict":
            assert real == "conflict"
            return
        assert (real.messages, real.is_repeated) == (expected, known)
        self.taken.update([] if known else real.messages)

    @rule(q=QUEUES, lease=LEASES, max=MAX, by=NAMES)
    def reserve(self, q: str, lease: int, max: int, by: str) -> None:
        model = self.up_to_date(q)
        batch = self.queue(q).reserve(lease * UNIT_SECONDS, max, by)
        found: list[Delivery] = batch.messages
        assert batch.paused == model.paused
        assert batch.limited == (not model.paused and model.waiting != [] and model.allowed(max) == 0)
        messages = [] if model.paused else model.pop_up_to(model.allowed(max))
        deliveries = [] if model.paused else [before + 1 for before in model.remove_redeliveries(messages)]
        assert [(bytes(each), each.deliveries) for each in found] == list(zip(messages, deliveries, strict=True))
        for delivery in found:
            assert self.client.zscore(self.queue(q).key_prefix + "reserved", delivery.id) == round(
                delivery.deadline * 1000
            )
            assert delivery.id not in self.ids[q], "an id is one delivery"
            self.ids[q].append(delivery.id)
            reservation = Reservation(bytes(delivery), delivery.deliveries, lease, next(self.orders), by=by)
            model.reserved[delivery.id] = reservation

    @rule(q=QUEUES, picks=PICKS)
    def ack(self, q: str, picks: list[int]) -> None:
        model, ids = self.model(q), self.pick_ids(q, picks)
        messages = [model.in_flight()[id].message for id in set(ids) if id in model.in_flight()]
        real = outcome(lambda: self.queue(q).ack(*ids))
        assert real == outcome(lambda: model.ack(ids))
        self.taken.update(messages if isinstance(real, int) else [])

    @rule(q=QUEUES, picks=PICKS, job=st.sampled_from(["j1", "j2"]))
    def ack_with(self, q: str, picks: list[int], job: str) -> None:
        model, id = self.model(q), self.pick_ids(q, picks)[0]
        message = model.in_flight()[id].message if id in model.in_flight() else None
        real = outcome(lambda: self.queue(q).ack_with(id, job, b"result of " + id.encode()))
        assert real == outcome(lambda: model.ack_with(id, job, b"result of " + id.encode()))
        self.taken.update([message] if real is None and message else [])

    @rule(q=QUEUES, job=st.sampled_from(["j1", "j2"]))
    def result(self, q: str, job: str) -> None:
        found = self.queue(q).result(job)
        assert (found.result if found else None) == self.model(q).results.get(job)
        assert not found or found.failed == ("why" if found.result == b"why" else None)

    @rule(q=QUEUES, picks=PICKS, delay=DELAYS, bury=st.booleans(), reason=st.sampled_from(["", "a: b"]))
    def release(self, q: str, picks: list[int], delay: int, bury: bool, reason: str) -> None:
        model, ids = self.up_to_date(q), self.pick_ids(q, picks)
        seconds, unstarted = max(delay, 0) * UNIT_SECONDS, delay < 0 and not bury
        queue = self.queue(q)
        real = outcome(lambda: queue.release(*ids, delay=seconds, dead=bury, unstarted=unstarted, reason=reason))
        assert real == outcome(lambda: model.release(ids, delay, bury, reason))
        self.ids[q] += [id for id in model.delayed if id not in self.ids[q]]

    @rule(q=QUEUES, picks=PICKS, lease=LEASES)
    def extend(self, q: str, picks: list[int], lease: int) -> None:
        model, id = self.model(q), self.pick_ids(q, picks)[0]
        real = outcome(lambda: self.queue(q).extend(id, lease * UNIT_SECONDS))
        expected = outcome(lambda: model.extend(id, lease))
        if expected is None:
            place = self.queue(q).key_prefix + ("delayed" if id.endswith("-d") else "reserved")
            assert real * 1000 == pytest.approx(self.client.zscore(place, id))
        else:
            assert real == expected

    @rule(q=QUEUES, acks=PICKS, releases=RELEASES, extends=PICKS, lease=LEASES)
    def settle(
        self, q: str, acks: list[int], releases: list[tuple[int, int, bool]], extends: list[int], lease: int
    ) -> None:
        model, acked, extended = self.up_to_date(q), self.pick_ids(q, acks), self.pick_ids(q, extends)
        released = [(self.pick_ids(q, [pick])[0], delay, bury) for pick, delay, bury in releases]
        messages = {id: one.message for id, one in model.in_flight().items()}
        found = self.queue(q).settle(
            [Ack(id, None if number else "j1", b"done") for number, id in enumerate(acked)],
            [
                Release(id, max(delay, 0) * UNIT_SECONDS, bury, delay < 0 and not bury, "why", "j2")
                for id, delay, bury in released
            ],
            [Extend(id, lease * UNIT_SECONDS) for id in extended],
        )
        assert found == model.settle(acked, released, extended, lease)
        self.taken.update(messages[id] for id in dict.fromkeys(acked) if id in messages)
        self.ids[q] += [id for id in model.delayed if id not in self.ids[q]]

    @rule(q=QUEUES, position=st.integers(0, 5), other=st.sampled_from([None, b"a"]))
    def remove(self, q: str, position: int, other: bytes | None) -> None:
        """Remove the message at a position, or another one, as a client with an outdated view does."""
        model = self.up_to_date(q)
        there = model.waiting[position] if position < len(model.waiting) else b"b"
        message = there if other is None else other
        real = outcome(lambda: self.queue(q).remove(position, message))
        assert real == outcome(lambda: model.remove(position, message))
        self.taken.update([message] if real is None else [])

    @rule(q=QUEUES, pick=st.integers(0, 5))
    def undo_a_removal(self, q: str, pick: int) -> None:
        """Remove a message and put it back, which changes nothing."""
        waiting = self.up_to_date(q).waiting
        if not waiting:
            return
        position = pick % len(waiting)
        undo = self.queue(q).remove(position, waiting[position], undo=True)
        assert self.queue(q).restore(undo or "") == 1

    @rule(q=QUEUES)
    def clear(self, q: str) -> None:
        model = self.up_to_date(q)
        count, undo = self.queue(q).clear()
        assert count == len(model.waiting)
        assert (undo is None) == (count == 0)
        if undo:
            self.undos.append(undo)
            model.cleared[undo] = model.pop_up_to(count)
            model.redeliveries.clear()
            model.failure_reasons.clear()

    @rule(q=QUEUES, pick=st.integers(0, 3))
    def restore(self, q: str, pick: int) -> None:
        model, undo = self.up_to_date(q), self.undos[-1 - pick % len(self.undos)]
        assert outcome(lambda: self.queue(q).restore(undo)) == outcome(lambda: model.restore(undo))

    @rule(q=QUEUES, to=QUEUES, max=MAX)
    def move(self, q: str, to: str, max: int) -> None:
        if q == to:
            return
        model = self.up_to_date(q)
        assert self.queue(q).move(self.mark + to, max) == len(model.waiting[:max])
        model.remove_redeliveries(moved := model.pop_up_to(max))
        model.hand_over(self.model(to), moved)

    @rule(q=QUEUES, to=QUEUES, max=MAX)
    def undo_a_move(self, q: str, to: str, max: int) -> None:
        """Move messages and move them back, which puts them to the front as a push does."""
        if q == to:
            return
        model, target = self.up_to_date(q), self.up_to_date(to)
        self.queue(to).sweep()  # so that no equal message joins it behind the moved ones
        undo = self.queue(q).new_undo(self.mark + to)
        moved = self.queue(q).move(self.mark + to, max, undo)
        assert outcome(lambda: self.queue(q).restore(undo)) == (moved or "not found")
        messages = model.pop_up_to(max)
        model.remove_redeliveries(messages)
        had_reason = model.hand_over(target, messages)
        for message in reversed(messages):
            target.take_at(len(target.waiting) - 1, message)
        model.push(messages, front=True)
        for message in itertools.compress(messages, had_reason):
            model.add_failure_reason(message, *(target.take_failure_reason(message) or (0, "")))

    @rule(q=QUEUES, to=QUEUES, pick=st.integers(0, 5))
    def undo_a_move_of_one(self, q: str, to: str, pick: int) -> None:
        """Move a message and move it back to its place, or to the front if it was among those that came back."""
        if q == to:
            return
        self.queue(q).sweep(), self.queue(to).sweep()
        model, target = self.up_to_date(q), self.up_to_date(to)
        if not model.waiting:
            return
        position = pick % len(model.waiting)
        message, undo = model.waiting[position], self.queue(q).new_undo(self.mark + to)
        self.queue(q).move_one(self.mark + to, position, message, undo)
        assert self.queue(q).restore(undo) == 1
        model.take_at(position, message)
        [had_reason] = model.hand_over(target, [message])
        target.take_at(len(target.waiting) - 1, message)
        if position and position >= len(model.redeliveries):
            model.waiting.insert(position, message)
        else:
            model.push([message], front=True)
        if had_reason:
            model.add_failure_reason(message, *(target.take_failure_reason(message) or (0, "")))

    @rule(q=QUEUES)
    def reasons(self, q: str) -> None:
        model = self.model(q)
        found: Counter[str] = Counter()
        dead = model if q == DEAD else model.dead()
        for number, _, reason in dead.failure_reasons.values():
            found[reason] += number
        if q != DEAD:
            found.update(reason for *_, reason in model.redeliveries if reason)
            found.update(each.reason for each in model.delayed.values() if each.deliveries)
        assert {each.reason: each.count for each in self.queue(q).reasons()[0] if each.reason} == {
            reason: number for reason, number in found.items() if reason
        }

    @rule(q=QUEUES, to=QUEUES, pick=st.integers(0, 5), other=st.sampled_from([None, None, b"a"]))
    def move_one(self, q: str, to: str, pick: int, other: bytes | None) -> None:
        """Move the message at a position, or another one, as a client with an outdated view does."""
        if q == to:
            return
        model = self.up_to_date(q)
        position = pick % max(1, len(model.waiting))
        message = other or next(iter(model.waiting[position:]), b"b")
        real = outcome(lambda: self.queue(q).move_one(self.mark + to, position, message))
        assert real == outcome(lambda: model.take_at(position, message))
        if real is None:
            model.hand_over(self.model(to), [message])

    @rule(q=QUEUES, to=QUEUES, max=MAX, text=st.sampled_from([b"a", b",", b"none"]))
    def find_and_move(self, q: str, to: str, max: int, text: bytes) -> None:
        if q == to:
            return
        self.queue(q).sweep()  # a search returns nothing that is due
        model = self.up_to_date(q)
        positions = model.find(text)[:max]
        assert sum(self.queue(q).find_and_move(self.mark + to, text.decode(), max)) == len(positions)
        found, _ = model.take_many(positions)
        model.hand_over(self.model(to), found)

    @rule(q=QUEUES, max=MAX, text=st.sampled_from([b"a", b",", b"none"]))
    def find_and_remove(self, q: str, max: int, text: bytes) -> None:
        self.queue(q).sweep()
        model = self.up_to_date(q)
        undo, batches = self.queue(q).find_and_remove(text.decode(), max)
        self.was_removed(model, undo, sum(batches), model.find(text)[:max])

    @rule(q=QUEUES, picks=PICKS, other=st.sampled_from([None, None, b"a"]))
    def remove_many(self, q: str, picks: list[int], other: bytes | None) -> None:
        """Remove the messages at some positions, or others, as a client with an outdated view does."""
        model = self.up_to_date(q)
        there = dict(enumerate(model.waiting))
        undo, batches = self.queue(q).remove_many([(at, other or there.get(at, b"b")) for at in picks])
        positions = [at for at in sorted(set(picks)) if at in there and other in (None, there[at])]
        self.was_removed(model, undo, sum(batches), positions)

    def was_removed(self, model: Model, undo: str, removed: int, positions: list[int]) -> None:
        assert removed == len(positions)
        if positions:
            model.cleared[undo], model.histories[undo] = model.take_many(positions)
            model.remove_failure_reasons(model.cleared[undo])
            self.undos.append(undo)

    @rule(q=QUEUES, text=st.sampled_from([b"A", b",", b"none"]))
    def find(self, q: str, text: bytes) -> None:
        self.queue(q).sweep()
        model = self.up_to_date(q)
        found = [*itertools.chain(*self.queue(q).find(text.decode(), 2, details=True))]
        expected, details = model.find(text.lower()), model.details()
        assert [(one.position, one.head) for one in found] == [(at, model.waiting[at][:2]) for at in expected]
        for one in found:  # equal messages have their own history only if all before them have one
            if model.waiting.count(model.waiting[one.position]) == 1 and one.details:
                assert (one.details.deliveries, one.details.reason) == details[one.position]

    @rule(q=QUEUES)
    def details(self, q: str) -> None:
        model = self.up_to_date(q)
        found = self.queue(q).details(50, 0, 2)
        assert [(head, size) for head, size, _ in found] == [(each[:2], len(each)) for each in model.waiting]
        assert [(history.deliveries, history.reason) for _, _, history in found] == model.details()

    @rule(q=QUEUES, kind=st.sampled_from(["reserved", "delayed"]), offset=st.integers(0, 2), number=st.integers(1, 3))
    def in_flight(self, q: str, kind: str, offset: int, number: int) -> None:
        """Read a list in parts, each behind the last."""
        model = self.up_to_date(q)
        place = model.reserved if kind == "reserved" else model.delayed
        found = self.queue(q).in_flight(kind, number, 100, offset)
        while found and (more := self.queue(q).in_flight(kind, number, 100, after=found[-1])):
            found += more
        assert len(found) == max(0, len(place) - offset)
        assert [one.deadline for one in found] == sorted(one.deadline for one in found)
        for one in found:
            each = place[one.id]
            assert (one.head, one.size, one.by) == (each.message, len(each.message), each.by)
            assert one.details.deliveries == each.deliveries
            assert (one.details.died is not None) == (each.message in model.failure_reasons)

    @rule(q=QUEUES, paused=st.booleans())
    def pause_or_resume(self, q: str, paused: bool) -> None:
        (self.queue(q).pause if paused else self.queue(q).resume)()
        self.model(q).paused = paused

    @rule(q=QUEUES, at_once=st.integers(0, 3), max_deliveries=st.integers(0, 4))
    def set_settings(self, q: str, at_once: int, max_deliveries: int) -> None:
        self.queue(q).set_settings(at_once=at_once, max_deliveries=max_deliveries)
        self.model(q).settings = QueueSettings(at_once=at_once, max_deliveries=max_deliveries)
        assert self.queue(q).settings() == self.model(q).settings

    @rule(q=QUEUES, offset=st.integers(0, 5), heads=st.integers(0, 5))
    def state(self, q: str, offset: int, heads: int) -> None:
        model, state = self.up_to_date(q), self.queue(q).state(heads, offset, 2)
        assert state.counts == QueueCounts(
            count=len(model.waiting),
            reserved=len(model.reserved),
            delayed=len(model.delayed),
            dead=len(model.dead().waiting),
            waiters=sum(number for number, _ in model.waiters.values()),
            paused=model.paused,
        )
        assert state.heads == [(message[:2], len(message)) for message in model.waiting[offset:][:heads]]

    @rule(q=QUEUES)
    def count(self, q: str) -> None:
        assert self.queue(q).count() == len(self.model(q).waiting)

    @rule(q=QUEUES, offset=st.integers(0, 6), limit=st.none() | st.integers(0, 6))
    def all_and_iter_messages(self, q: str, offset: int, limit: int | None) -> None:
        window = self.model(q).waiting[offset:][:limit]
        assert self.queue(q).all(offset, limit) == window
        assert list(itertools.chain(*iter_messages(self.queue(q), offset, limit))) == window

    @rule(q=QUEUES, process=st.sampled_from(["p1", "p2"]), number=st.integers(0, 3), by=NAMES)
    def report_waiters(self, q: str, process: str, number: int, by: str) -> None:
        self.queue(q).report_waiters(process, number, 60, {by: number})
        self.model(q).waiters.pop(process, None)
        self.model(q).waiters.update({process: (number, by)} if number else {})

    @rule(q=QUEUES)
    def consumers(self, q: str) -> None:
        model = self.up_to_date(q)
        found, is_complete = self.queue(q).consumers()
        assert is_complete
        reserved = Counter(each.by for each in model.reserved.values())
        waiting = sum((Counter({by: number}) for number, by in model.waiters.values()), Counter())
        assert {one.by: (one.reserved, one.waiting) for one in found} == {
            by: (reserved[by], waiting[by]) for by in reserved | waiting
        }
        assert all((one.oldest is None) == (not one.reserved) for one in found)

    @rule(units=st.integers(1, 3))
    def time_passes(self, units: int) -> None:
        """Let each lease and delay end earlier, as if the clock of Redis had advanced."""
        milliseconds = units * UNIT_SECONDS * 1000
        for q, model in self.models.items():
            key = self.queue(q).key_prefix + "clock"
            if clock := self.client.get(key):
                earlier = ":".join(str(int(time) - milliseconds) for time in clock.split(b":"))
                self.client.set(key, earlier, keepttl=True)
            for kind, place in (("reserved", model.reserved), ("delayed", model.delayed)):
                for id, reservation in place.items():
                    self.client.zincrby(self.queue(q).key_prefix + kind, -milliseconds, id)
                    reservation.units_left -= units

    @invariant()
    def valkey_holds_what_the_model_holds(self) -> None:
        keys, messages = set(), Counter(self.taken)
        now, stored = self.read()
        for q, model in self.models.items():
            queue, found = self.queue(q), stored[q]
            assert found.waiting == model.waiting, f"the order in {q}"
            assert max(found.lifetimes) < 0, "no message expires"
            bodies = {id: body for id, body in found.bodies.items() if not id.endswith((b":failure", b":by"))}
            in_flight = {id.removesuffix("-d"): each for id, each in model.in_flight().items()}
            assert bodies == {id.encode(): each.message for id, each in in_flight.items()}
            names = {id: by for id, by in found.bodies.items() if id.endswith(b":by")}
            assert names == {f"{id}:by".encode(): each.by.encode() for id, each in in_flight.items() if each.by}
            assert all(id.endswith(f"-{each.deliveries}") for id, each in in_flight.items())
            for stored_ends, place in ((found.leases, model.reserved), (found.delays, model.delayed)):
                left = {id.decode(): max(0, math.ceil((end - now) / 1000 / UNIT_SECONDS)) for id, end in stored_ends}
                assert left == {id: max(0, each.units_left) for id, each in place.items()}
                for id, end in stored_ends:
                    place[id.decode()].deadline = end
            ends = [end for _, end in (*found.leases, *found.delays)]
            assert found.none_ends_before <= min(ends, default=math.inf), "what the clock says"
            expected = [(digest_of(each), deliveries, reason) for each, deliveries, reason in model.redeliveries]
            entries = [[*entry.decode().split(":", 4), "", ""] for entry in found.redeliveries]
            redeliveries = [(digest, int(deliveries), reason) for digest, deliveries, _, _, reason, *_ in entries]
            assert redeliveries == expected, f"redeliveries in {q}"
            records = {
                digest.decode(): record.decode().split(":", 3) for digest, record in found.failure_reasons.items()
            }
            assert {digest: (int(n), int(d), reason) for digest, (n, d, _, reason) in records.items()} == {
                digest_of(message): record for message, record in model.failure_reasons.items()
            }, f"failure reasons in {q}"
            assert found.cleared == model.cleared
            messages.update(found.waiting)
            messages.update(bodies.values())
            messages.update(itertools.chain(*found.cleared.values()))
            kinds = {
                "reserved": model.reserved,
                "delayed": model.delayed,
                "bodies": model.in_flight(),
                "redeliveries": model.redeliveries,
                "acked": model.acked,
                "failure_reasons": model.failure_reasons,
                "paused": model.paused,
                "settings": model.settings != QueueSettings(),
            }
            keys |= {queue.key_prefix + key for key, value in {**kinds, "waiters": model.waiters}.items() if value}
            keys |= {queue.key} if found.waiting else set()
            keys |= {queue._cleared_key(undo) for undo in model.cleared}
            keys |= {queue._removed_keys(undo)[1] for undo, history in model.histories.items() if history}
            keys |= {queue.result_key(job) for job in model.results}
        assert messages == self.pushed, "pushed = waiting + reserved + dead + cleared + taken"
        others = {self.queue(q).key_prefix + key for q in self.models for key in ("clock", "resumed", "counters")}
        others |= {key for q, model in self.models.items() if model.answers for key in self.queue(q)._answer_keys}
        assert {key.decode() for key in self.keys()} - others == keys, "no other keys"

    def read(self) -> tuple[int, dict[str, Stored]]:
        """Return the Redis time in milliseconds and what Valkey holds of each queue, read in one round trip."""
        pipeline = self.client.pipeline(transaction=False)
        pipeline.time()
        for q, model in self.models.items():
            queue = self.queue(q)
            pipeline.lrange(queue.key, 0, -1)
            pipeline.hgetall(queue.key_prefix + "bodies")
            pipeline.zrange(queue.key_prefix + "reserved", 0, -1, withscores=True)
            pipeline.zrange(queue.key_prefix + "delayed", 0, -1, withscores=True)
            pipeline.lrange(queue.key_prefix + "redeliveries", 0, -1)
            pipeline.hgetall(queue.key_prefix + "failure_reasons")
            pipeline.get(queue.key_prefix + "clock")
            for key in (queue.key, *(queue.key_prefix + each for each in ("reserved", "delayed", "bodies"))):
                pipeline.ttl(key)
            for undo in model.cleared:
                pipeline.lrange(queue._cleared_key(undo), 0, -1)
        replies = iter(pipeline.execute())
        seconds, microseconds = next(replies)
        stored = {}
        for q, model in self.models.items():
            waiting, bodies, leases, delays, redeliveries, reasons, clock, *lifetimes = itertools.islice(replies, 11)
            cleared = {undo: next(replies)[::-1] for undo in model.cleared}
            soonest = int(clock.split(b":")[1]) if clock else 0
            stored[q] = Stored(
                waiting[::-1], bodies, leases, delays, redeliveries, reasons, soonest, set(lifetimes), cleared
            )
        return seconds * 1000 + microseconds // 1000, stored

    def keys(self) -> list[bytes]:
        return list(self.client.scan_iter(f"*{self.mark}*", count=10_000))

    def teardown(self) -> None:
        if keys := self.keys():
            self.client.delete(*keys)


@pytest.mark.timeout(900)  # Hypothesis takes up to five minutes to find the shortest sequence that fails
@pytest.mark.parametrize(
    "examples", [15, pytest.param(RANDOM_EXAMPLES or 120, marks=[pytest.mark.slow, pytest.mark.soak])]
)
def test_every_verb_does_what_the_model_does(valkey: Store, examples: int) -> None:
    class OnValkey(EveryOperation):
        client = connect(valkey.url.removesuffix("/0") + "/1")  # a database without the keys of other tests

    profile = settings(
        max_examples=examples,
        derandomize=not RANDOM_EXAMPLES,
        stateful_step_count=50,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(OnValkey, settings=profile)
