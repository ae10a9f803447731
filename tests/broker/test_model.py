"""Random sequences of all verbs, on Valkey and on a model in plain Python, which must agree after every step.

They are compared with plain commands, which return no message of an ended lease: the order of every list, every
reservation and its time left, the deliveries remembered, and that there is no other key.
MODEL_EXAMPLES=2000 tries so many random sequences; without it the sequences are always the same.
"""

import itertools
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from broker.browse import iter_messages
from broker.connection import connect
from broker.reliable import Conflict, Delivery, ReliableQueue, Stale
from RedisQueue import RedisQueue
from tests.servers import Store

MAX_DELIVERIES = 3
UNIT_SECONDS = 1000  # the model's unit of time: next to it the real time that passes is nothing
RANDOM_EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", 0))


@dataclass
class Reservation:
    message: bytes
    deliveries: int
    units_left: int  # until the lease ends
    order: int  # its place among all reservations


@dataclass
class Model:
    """A queue as the contract describes it. In every list the message that is popped next comes first."""

    dead: "Callable[[], Model]"
    waiting: list[bytes] = field(default_factory=list)
    returned: list[tuple[bytes, int]] = field(default_factory=list)  # messages at the front and their deliveries
    reserved: dict[str, Reservation] = field(default_factory=dict)
    acked: set[str] = field(default_factory=set)
    answers: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # Idempotency-Key -> request, answer
    cleared: dict[str, list[bytes]] = field(default_factory=dict)
    waiters: dict[str, int] = field(default_factory=dict)

    def push(self, messages: Sequence[bytes], next: bool) -> int:
        if next:
            self.waiting[:0] = messages
            self.returned += [(message, 0) for message in reversed(messages)] if self.returned else []
        else:
            self.waiting += messages
        return len(self.waiting)

    def once(self, key: str, request: Any, operation: Callable[[], Any]) -> Any:
        """Do an operation for an Idempotency-Key, or return the answer that was kept for it."""
        if key in self.answers:
            known_request, answer = self.answers[key]
            if known_request != request:
                raise Conflict
            return answer
        if answer := operation():
            self.answers[key] = request, answer
        return answer

    def requeue_expired(self) -> None:
        self.release_all([id for id, reservation in self.reserved.items() if reservation.units_left <= 0])

    def release_all(self, ids: Sequence[str]) -> int:
        """Put messages at the front, the oldest foremost, or behind the dead letters, the oldest first."""
        ended = sorted((self.reserved.pop(id) for id in set(ids)), key=lambda reservation: reservation.order)
        returned = [each for each in ended if each.deliveries < MAX_DELIVERIES]
        self.waiting[:0] = [each.message for each in returned]
        self.returned += [(each.message, each.deliveries) for each in reversed(returned)]
        buried = [each.message for each in ended if each.deliveries >= MAX_DELIVERIES]
        self.dead().waiting += buried
        return len(buried)

    def forget_all(self, messages: Sequence[bytes]) -> list[int]:
        """Forget the deliveries of messages that left the front, and return them.

        Of equal messages the one that returned last counts as foremost. Once a message leaves that never returned,
        those that did have left before it.
        """
        deliveries = []
        for message in messages:
            at = self.find_returned(message, 1)
            deliveries.append(0 if at is None else self.returned[at][1])
            del self.returned[at or 0 :]
        if not self.waiting:
            self.returned.clear()
        return deliveries

    def find_returned(self, message: bytes, number: int) -> int | None:
        """Return where the n-th of equal messages stands among the returned, counted from the foremost."""
        found = [at for at, (each, _) in enumerate(self.returned) if each == message]
        return found[-number] if len(found) >= number else None

    def pop_up_to(self, max: int) -> list[bytes]:
        taken, self.waiting[:] = self.waiting[:max], self.waiting[max:]
        return taken

    def pop(self, max: int) -> list[bytes]:
        self.forget_all(taken := self.pop_up_to(max))
        return taken

    def raise_if_stale(self, ids: Sequence[str], known: set[str]) -> None:
        if stale := [id for id in ids if id not in known]:
            raise Stale(stale)

    def ack(self, ids: Sequence[str]) -> int:
        self.raise_if_stale(ids, self.reserved.keys() | self.acked)
        for id in ids:
            self.reserved.pop(id, None)
            self.acked.add(id)
        return len(set(ids))

    def release(self, ids: Sequence[str]) -> int:
        self.raise_if_stale(list(dict.fromkeys(ids)), set(self.reserved))
        return self.release_all(ids)

    def extend(self, id: str, lease: int) -> None:
        self.raise_if_stale([id], set(self.reserved))
        self.reserved[id].units_left = lease

    def remove(self, position: int, message: bytes) -> None:
        if self.waiting[position : position + 1] != [message]:
            raise Stale
        at = self.find_returned(message, self.waiting[: position + 1].count(message))
        if at is not None:
            del self.returned[at]
        del self.waiting[position]

    def restore(self, undo: str) -> int:
        if undo not in self.cleared:
            raise Stale
        messages = self.cleared.pop(undo)
        self.waiting[:0] = messages
        self.returned.clear()
        return len(messages)


@dataclass
class Stored:
    """What Valkey holds of a queue. A lifetime below zero is that of a key that does not expire, or does not exist."""

    waiting: list[bytes]
    bodies: dict[bytes, bytes]
    leases: list[tuple[bytes, float]]
    returned: list[bytes]
    lifetimes: set[int]
    cleared: dict[str, list[bytes]]


def outcome(operation: Callable[[], Any]) -> Any:
    """Return what an operation returns, or the error that it raises."""
    try:
        return operation()
    except Stale as stale:
        return "stale", stale.ids
    except Conflict:
        return "conflict"


JOBS, DEAD, OTHER = "jobs", "jobs.dead", "other"
QUEUES = st.sampled_from([JOBS, JOBS, JOBS, DEAD, OTHER])
MESSAGES = st.lists(st.sampled_from([b"a", b"b", b"2,1", b"\x00:\xff"]), min_size=1, max_size=4)
KEYS = st.sampled_from(["k1", "k2"])
MAX = st.integers(1, 4)
LEASES = st.integers(1, 3)
PICKS = st.lists(st.integers(0, 7), min_size=1, max_size=3)  # which of the ids so far, 0 the latest; 7 is an unknown id

_numbers = itertools.count()


class EveryVerb(RuleBasedStateMachine):
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
        """Return the model of a queue for a verb that first returns the messages of expired leases."""
        self.model(q).requeue_expired()
        return self.model(q)

    def pick_ids(self, q: str, picks: list[int]) -> list[str]:
        known = self.ids[q]
        return [known[-1 - pick % len(known)] if known and pick < 7 else "1-none" for pick in picks]

    @rule(q=QUEUES, messages=MESSAGES, next=st.booleans())
    def push(self, q: str, messages: list[bytes], next: bool) -> None:
        assert self.queue(q).push(*messages, next=next) == self.model(q).push(messages, next)
        self.pushed.update(messages)

    @rule(q=QUEUES, key=KEYS, messages=MESSAGES, next=st.booleans())
    def push_once(self, q: str, key: str, messages: list[bytes], next: bool) -> None:
        model = self.model(q)
        known = key in model.answers
        real = outcome(lambda: self.queue(q).push_once(key, messages, next))
        assert real == outcome(lambda: model.once(key, ("push", next, messages), lambda: model.push(messages, next)))
        self.pushed.update([] if known else messages)

    @rule(q=QUEUES)
    def push_once_again(self, q: str) -> None:
        """Repeat what was pushed with a key."""
        for key, (request, answer) in self.model(q).answers.items():
            if request[0] == "push":
                assert self.queue(q).push_once(key, request[2], request[1]) == answer

    @rule(q=QUEUES, max=MAX)
    def pop(self, q: str, max: int) -> None:
        taken = self.queue(q).pop(max)
        assert taken == self.up_to_date(q).pop(max)
        self.taken.update(taken)

    @rule(q=QUEUES, max=MAX)
    def pop_by_another_client(self, q: str, max: int) -> None:
        """The deliveries of a message that another client pops are remembered until one behind it is taken."""
        taken = RedisQueue(self.client, self.mark + q).pop(max)
        assert taken == self.model(q).pop_up_to(max)
        self.taken.update(taken)

    @rule(q=QUEUES, key=KEYS, max=MAX)
    def pop_once(self, q: str, key: str, max: int) -> None:
        model = self.up_to_date(q)
        known = key in model.answers
        real = outcome(lambda: self.queue(q).pop_batch(max, idempotency_key=key).messages)
        assert real == outcome(lambda: model.once(key, ("pop", max), lambda: model.pop(max)))
        self.taken.update([] if known else real)

    @rule(q=QUEUES, lease=LEASES, max=MAX)
    def reserve(self, q: str, lease: int, max: int) -> None:
        model = self.up_to_date(q)
        found: list[Delivery] = self.queue(q).reserve(lease * UNIT_SECONDS, max).messages
        messages = model.pop_up_to(max)
        deliveries = [before + 1 for before in model.forget_all(messages)]
        assert [(bytes(each), each.deliveries) for each in found] == list(zip(messages, deliveries, strict=True))
        for delivery in found:
            assert self.client.zscore(self.queue(q).key_prefix + "reserved", delivery.id) == round(
                delivery.deadline * 1000
            )
            assert delivery.id not in self.ids[q], "an id is one delivery"
            self.ids[q].append(delivery.id)
            model.reserved[delivery.id] = Reservation(bytes(delivery), delivery.deliveries, lease, next(self.orders))

    @rule(q=QUEUES, picks=PICKS)
    def ack(self, q: str, picks: list[int]) -> None:
        model, ids = self.up_to_date(q), self.pick_ids(q, picks)
        messages = [model.reserved[id].message for id in set(ids) if id in model.reserved]
        real = outcome(lambda: self.queue(q).ack(*ids))
        assert real == outcome(lambda: model.ack(ids))
        self.taken.update(messages if isinstance(real, int) else [])

    @rule(q=QUEUES, picks=PICKS)
    def release(self, q: str, picks: list[int]) -> None:
        model, ids = self.up_to_date(q), self.pick_ids(q, picks)
        assert outcome(lambda: self.queue(q).release(*ids)) == outcome(lambda: model.release(ids))

    @rule(q=QUEUES, picks=PICKS, lease=LEASES)
    def extend(self, q: str, picks: list[int], lease: int) -> None:
        model, id = self.up_to_date(q), self.pick_ids(q, picks)[0]
        real = outcome(lambda: self.queue(q).extend(id, lease * UNIT_SECONDS))
        expected = outcome(lambda: model.extend(id, lease))
        if expected is None:
            assert real * 1000 == pytest.approx(self.client.zscore(self.queue(q).key_prefix + "reserved", id))
        else:
            assert real == expected

    @rule(q=QUEUES, position=st.integers(0, 5), other=st.sampled_from([None, b"a"]))
    def remove(self, q: str, position: int, other: bytes | None) -> None:
        """Remove the message at a position, or expect another one there, as a client with an old view does."""
        model = self.up_to_date(q)
        there = model.waiting[position] if position < len(model.waiting) else b"b"
        message = there if other is None else other
        real = outcome(lambda: self.queue(q).remove(position, message))
        assert real == outcome(lambda: model.remove(position, message))
        self.taken.update([message] if real is None else [])

    @rule(q=QUEUES)
    def clear(self, q: str) -> None:
        model = self.up_to_date(q)
        count, undo = self.queue(q).clear()
        assert count == len(model.waiting)
        assert (undo is None) == (count == 0)
        if undo:
            self.undos.append(undo)
            model.cleared[undo] = model.pop_up_to(count)
            model.returned.clear()

    @rule(q=QUEUES, pick=st.integers(0, 3))
    def restore(self, q: str, pick: int) -> None:
        model, undo = self.up_to_date(q), self.undos[-1 - pick % len(self.undos)]
        assert outcome(lambda: self.queue(q).restore(undo)) == outcome(lambda: model.restore(undo))

    @rule(q=QUEUES, to=QUEUES, max=MAX)
    def move(self, q: str, to: str, max: int) -> None:
        if q == to:
            return
        moved = self.up_to_date(q).pop(max)
        assert self.queue(q).move(self.mark + to, max) == len(moved)
        self.model(to).push(moved, next=False)

    @rule(q=QUEUES, offset=st.integers(0, 5), heads=st.integers(0, 5))
    def state(self, q: str, offset: int, heads: int) -> None:
        model, state = self.up_to_date(q), self.queue(q).state(heads, offset, 2)
        assert (state.count, state.reserved) == (len(model.waiting), len(model.reserved))
        assert (state.dead, state.waiters) == (len(model.dead().waiting), sum(model.waiters.values()))
        assert state.heads == [(message[:2], len(message)) for message in model.waiting[offset:][:heads]]

    @rule(q=QUEUES)
    def count(self, q: str) -> None:
        assert self.queue(q).count() == len(self.up_to_date(q).waiting)

    @rule(q=QUEUES, offset=st.integers(0, 6), limit=st.none() | st.integers(0, 6))
    def all_and_iter_messages(self, q: str, offset: int, limit: int | None) -> None:
        window = self.model(q).waiting[offset:][:limit]
        assert self.queue(q).all(offset, limit) == window
        assert list(itertools.chain(*iter_messages(self.queue(q), offset, limit))) == window

    @rule(q=QUEUES, process=st.sampled_from(["p1", "p2"]), number=st.integers(0, 3))
    def report_waiters(self, q: str, process: str, number: int) -> None:
        self.queue(q).report_waiters(process, number, 60)
        self.up_to_date(q).waiters.pop(process, None)
        self.model(q).waiters.update({process: number} if number else {})

    @rule(units=st.integers(1, 3))
    def time_passes(self, units: int) -> None:
        """Let every lease end earlier, as if the Redis clock had gone on."""
        for q, model in self.models.items():
            for id, reservation in model.reserved.items():
                self.client.zincrby(self.queue(q).key_prefix + "reserved", -units * UNIT_SECONDS * 1000, id)
                reservation.units_left -= units

    @invariant()
    def valkey_holds_what_the_model_holds(self) -> None:
        keys, messages = set(), Counter(self.taken)
        now, stored = self.read()
        for q, model in self.models.items():
            queue, found = self.queue(q), stored[q]
            assert found.waiting == model.waiting, f"the order in {q}"
            assert max(found.lifetimes) < 0, "no message expires"
            assert found.bodies == {id.encode(): each.message for id, each in model.reserved.items()}
            assert all(id.endswith(f"-{each.deliveries}") for id, each in model.reserved.items())
            left = {id.decode(): max(0, math.ceil((end - now) / 1000 / UNIT_SECONDS)) for id, end in found.leases}
            assert left == {id: max(0, each.units_left) for id, each in model.reserved.items()}
            expected = [(sha1(each).hexdigest()[:20], deliveries) for each, deliveries in model.returned]
            entries = [entry.decode().split(":") for entry in found.returned]
            assert [(digest, int(deliveries)) for digest, deliveries, _ in entries] == expected, f"deliveries in {q}"
            assert found.cleared == model.cleared
            messages.update(found.waiting)
            messages.update(found.bodies.values())
            messages.update(itertools.chain(*found.cleared.values()))
            kinds = {
                "reserved": model.reserved,
                "bodies": model.reserved,
                "returned": model.returned,
                "acked": model.acked,
            }
            keys |= {queue.key_prefix + key for key, value in {**kinds, "waiters": model.waiters}.items() if value}
            keys |= {queue.key} if found.waiting else set()
            keys |= {queue._cleared_key(undo) for undo in model.cleared}
            keys |= {queue._answer_key(key) for key in model.answers}
        assert messages == self.pushed, "pushed = waiting + reserved + dead + cleared + taken"
        others = {self.queue(q).key_prefix + key for q in self.models for key in ("clock", "counters")}
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
            pipeline.lrange(queue.key_prefix + "returned", 0, -1)
            for key in (queue.key, queue.key_prefix + "reserved", queue.key_prefix + "bodies"):
                pipeline.ttl(key)
            for undo in model.cleared:
                pipeline.lrange(queue._cleared_key(undo), 0, -1)
        replies = iter(pipeline.execute())
        seconds, microseconds = next(replies)
        stored = {}
        for q, model in self.models.items():
            waiting, bodies, leases, returned, *lifetimes = itertools.islice(replies, 7)
            cleared = {undo: next(replies)[::-1] for undo in model.cleared}
            stored[q] = Stored(waiting[::-1], bodies, leases, returned, set(lifetimes), cleared)
        return seconds * 1000 + microseconds // 1000, stored

    def keys(self) -> list[bytes]:
        return list(self.client.scan_iter(f"*{self.mark}*", count=10_000))

    def teardown(self) -> None:
        if keys := self.keys():
            self.client.delete(*keys)


@pytest.mark.timeout(900)  # Hypothesis takes up to five minutes to find the shortest sequence that fails
@pytest.mark.parametrize("examples", [15, pytest.param(RANDOM_EXAMPLES or 120, marks=pytest.mark.slow)])
def test_every_verb_does_what_the_model_does(valkey: Store, examples: int) -> None:
    class OnValkey(EveryVerb):
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
