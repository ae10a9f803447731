"""Every verb, in any order, does to Valkey what it does to a model in plain Python: lists, dicts and its own clock.

After every step what is in Valkey is read with plain commands (so that the reading returns no lease by itself) and
compared: the order of every list, every reservation and its time left, the deliveries remembered, and no key besides.
MODEL_EXAMPLES=2000 looks at that many random runs; without it a fixed 120 are looked at.
"""

import itertools
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from broker.reliable import Conflict, Delivery, ReliableQueue, Stale
from RedisQueue import RedisQueue
from tests.servers import Store
from web.streams import walk

MOST = 3  # deliveries, then the dead letters
UNIT = 1000  # seconds: what the test calls 1; the real time that passes meanwhile is nothing beside it
RANDOM_EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", 0))


@dataclass
class Held:
    text: bytes
    deliveries: int
    left: int  # units until the lease ends
    order: int  # of its reservation


@dataclass
class Model:
    """A queue as the contract describes it. Foremost first everywhere."""

    dead: "Callable[[], Model]"
    waiting: list[bytes] = field(default_factory=list)
    counts: dict[bytes, list[int]] = field(default_factory=lambda: defaultdict(list))  # deliveries of what came back
    held: dict[str, Held] = field(default_factory=dict)
    acked: set[str] = field(default_factory=set)
    answered: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # Idempotency-Key -> request, answer
    cleared: dict[str, list[bytes]] = field(default_factory=dict)
    waiters: dict[str, int] = field(default_factory=dict)

    def push(self, texts: Sequence[bytes], next: bool) -> int:
        if next:
            self.waiting[:0] = texts
        else:
            self.waiting += texts
        return len(self.waiting)

    def once(self, key: str, request: Any, act: Callable[[], Any]) -> Any:
        if key in self.answered:
            before, answer = self.answered[key]
            if before != request:
                raise Conflict
            return answer
        if answer := act():
            self.answered[key] = request, answer
        return answer

    def sweep(self) -> None:
        self.give_back([id for id, held in self.held.items() if held.left <= 0])

    def give_back(self, ids: Sequence[str]) -> int:
        """To the front, the oldest foremost; or to the end of the dead letters, the oldest first."""
        ended = sorted((self.held.pop(id) for id in set(ids)), key=lambda held: held.order)
        back = [held for held in ended if held.deliveries < MOST]
        self.waiting[:0] = [held.text for held in back]
        for held in reversed(back):
            self.counts[held.text].append(held.deliveries)
        buried = [held.text for held in ended if held.deliveries >= MOST]
        self.dead().waiting += buried
        return len(buried)

    def left(self, texts: Sequence[bytes]) -> list[int]:
        """Forget what is known of texts that left the list, and return their deliveries so far.

        Equal texts cannot be told apart: the one that came back last counts as foremost.
        """
        found = [self.counts[text].pop() if self.counts[text] else 0 for text in texts]
        if not self.waiting:
            self.counts.clear()
        return found

    def cut(self, max: int) -> list[bytes]:
        taken, self.waiting[:] = self.waiting[:max], self.waiting[max:]
        return taken

    def pop(self, max: int) -> list[bytes]:
        self.left(taken := self.cut(max))
        return taken

    def unless_stale(self, ids: Sequence[str], known: set[str]) -> None:
        if stale := [id for id in ids if id not in known]:
            raise Stale(stale)

    def ack(self, ids: Sequence[str]) -> int:
        self.unless_stale(ids, self.held.keys() | self.acked)
        for id in ids:
            self.held.pop(id, None)
            self.acked.add(id)
        return len(set(ids))

    def release(self, ids: Sequence[str]) -> int:
        self.unless_stale(list(dict.fromkeys(ids)), set(self.held))
        return self.give_back(ids)

    def extend(self, id: str, lease: int) -> None:
        self.unless_stale([id], set(self.held))
        self.held[id].left = lease

    def remove(self, position: int, text: bytes) -> None:
        if self.waiting[position : position + 1] != [text]:
            raise Stale
        del self.waiting[position]
        self.left([text])

    def restore(self, undo: str) -> int:
        if undo not in self.cleared:
            raise Stale
        texts = self.cleared.pop(undo)
        self.waiting[:0] = texts
        return len(texts)


def unpacked(runs: bytes) -> list[int]:
    """Return the deliveries of the copies of a text that came back: [2, 1, 1] for b"2*1,1*2"."""
    pairs = [run.split(b"*") for run in runs.split(b",")]
    return [int(deliveries) for deliveries, copies in pairs for _ in range(int(copies))]


def outcome(act: Callable[[], Any]) -> Any:
    """Return what an act answers, or what it was refused with."""
    try:
        return act()
    except Stale as stale:
        return "stale", stale.ids
    except Conflict:
        return "conflict"


JOBS, DEAD, OTHER = "jobs", "jobs.dead", "other"
QUEUES = st.sampled_from([JOBS, JOBS, JOBS, DEAD, OTHER])
TEXTS = st.lists(st.sampled_from([b"a", b"b", b"2,1", b"\x00:\xff"]), min_size=1, max_size=4)
KEYS = st.sampled_from(["k1", "k2"])
SOME = st.integers(1, 4)
LEASES = st.integers(1, 3)
PICKS = st.lists(st.integers(0, 7), min_size=1, max_size=3)  # of the ids given so far, 0 the latest; 7 is of none

_numbers = itertools.count()


class EveryVerb(RuleBasedStateMachine):
    client: Any  # set by the test

    def __init__(self) -> None:
        super().__init__()
        self.mark = f"-{next(_numbers)}-"  # in the name of each queue of this run, and of no other
        self.models: dict[str, Model] = {}
        self.ids: dict[str, list[str]] = defaultdict(list)
        self.undos: list[str] = ["none"]
        self.orders = itertools.count()
        self.pushed: Counter[bytes] = Counter()
        self.taken: Counter[bytes] = Counter()

    def queue(self, q: str) -> ReliableQueue:
        return ReliableQueue(self.client, self.mark + q, max_deliveries=MOST)

    def model(self, q: str) -> Model:
        if q not in self.models:
            self.models[q] = Model(lambda: self.model(q + ".dead"))
        return self.models[q]

    def swept(self, q: str) -> Model:
        """Return the model of a queue for a verb that first gives back what has run out."""
        self.model(q).sweep()
        return self.model(q)

    def picked(self, q: str, picks: list[int]) -> list[str]:
        known = self.ids[q]
        return [known[-1 - pick % len(known)] if known and pick < 7 else "1-none" for pick in picks]

    # --- the verbs

    @rule(q=QUEUES, texts=TEXTS, next=st.booleans())
    def push(self, q: str, texts: list[bytes], next: bool) -> None:
        assert self.queue(q).push(*texts, next=next) == self.model(q).push(texts, next)
        self.pushed.update(texts)

    @rule(q=QUEUES, key=KEYS, texts=TEXTS, next=st.booleans())
    def push_once(self, q: str, key: str, texts: list[bytes], next: bool) -> None:
        model = self.model(q)
        known = key in model.answered
        real = outcome(lambda: self.queue(q).push_once(key, texts, next))
        assert real == outcome(lambda: model.once(key, ("push", next, texts), lambda: model.push(texts, next)))
        self.pushed.update([] if known else texts)

    @rule(q=QUEUES)
    def push_once_again(self, q: str) -> None:
        """What was pushed with a key is pushed with it again."""
        for key, (request, answer) in self.model(q).answered.items():
            if request[0] == "push":
                assert self.queue(q).push_once(key, request[2], request[1]) == answer

    @rule(q=QUEUES, max=SOME)
    def pop(self, q: str, max: int) -> None:
        taken = self.queue(q).pop(max)
        assert taken == self.swept(q).pop(max)
        self.taken.update(taken)

    @rule(q=QUEUES, max=SOME)
    def pop_by_another_client(self, q: str, max: int) -> None:
        """What is known of a message that another client took stays known until the queue is seen empty."""
        taken = RedisQueue(self.client, self.mark + q).pop(max)
        assert taken == self.model(q).cut(max)
        self.taken.update(taken)

    @rule(q=QUEUES, key=KEYS, max=SOME)
    def take_once(self, q: str, key: str, max: int) -> None:
        model = self.swept(q)
        known = key in model.answered
        real = outcome(lambda: self.queue(q).take(max, once=key).messages)
        assert real == outcome(lambda: model.once(key, ("pop", max), lambda: model.pop(max)))
        self.taken.update([] if known else real)

    @rule(q=QUEUES, lease=LEASES, max=SOME)
    def reserve(self, q: str, lease: int, max: int) -> None:
        model = self.swept(q)
        found: list[Delivery] = self.queue(q).reserve(lease * UNIT, max).messages
        texts = model.cut(max)
        counts = [before + 1 for before in model.left(texts)]
        assert [(bytes(delivery), delivery.deliveries) for delivery in found] == list(zip(texts, counts, strict=True))
        for delivery in found:
            assert self.client.zscore(self.queue(q).meta + "reserved", delivery.id) == round(delivery.deadline * 1000)
            assert delivery.id not in self.ids[q], "an id is one delivery"
            self.ids[q].append(delivery.id)
            model.held[delivery.id] = Held(bytes(delivery), delivery.deliveries, lease, next(self.orders))

    @rule(q=QUEUES, picks=PICKS)
    def ack(self, q: str, picks: list[int]) -> None:
        model, ids = self.swept(q), self.picked(q, picks)
        texts = [model.held[id].text for id in set(ids) if id in model.held]
        real = outcome(lambda: self.queue(q).ack(*ids))
        assert real == outcome(lambda: model.ack(ids))
        self.taken.update(texts if isinstance(real, int) else [])

    @rule(q=QUEUES, picks=PICKS)
    def release(self, q: str, picks: list[int]) -> None:
        model, ids = self.swept(q), self.picked(q, picks)
        assert outcome(lambda: self.queue(q).release(*ids)) == outcome(lambda: model.release(ids))

    @rule(q=QUEUES, picks=PICKS, lease=LEASES)
    def extend(self, q: str, picks: list[int], lease: int) -> None:
        model, id = self.swept(q), self.picked(q, picks)[0]
        real = outcome(lambda: self.queue(q).extend(id, lease * UNIT))
        expected = outcome(lambda: model.extend(id, lease))
        if expected is None:
            assert real * 1000 == pytest.approx(self.client.zscore(self.queue(q).meta + "reserved", id))
        else:
            assert real == expected

    @rule(q=QUEUES, position=st.integers(0, 5), other=st.sampled_from([None, b"a"]))
    def remove(self, q: str, position: int, other: bytes | None) -> None:
        """Remove what is there or, as somebody who looked a while ago, something else."""
        model = self.swept(q)
        there = model.waiting[position] if position < len(model.waiting) else b"b"
        text = there if other is None else other
        real = outcome(lambda: self.queue(q).remove(position, text))
        assert real == outcome(lambda: model.remove(position, text))
        self.taken.update([text] if real is None else [])

    @rule(q=QUEUES)
    def clear(self, q: str) -> None:
        model = self.swept(q)
        count, undo = self.queue(q).clear()
        assert count == len(model.waiting)
        assert (undo is None) == (count == 0)
        if undo:
            self.undos.append(undo)
            model.cleared[undo] = model.cut(count)
            model.counts.clear()

    @rule(q=QUEUES, pick=st.integers(0, 3))
    def restore(self, q: str, pick: int) -> None:
        model, undo = self.swept(q), self.undos[-1 - pick % len(self.undos)]
        assert outcome(lambda: self.queue(q).restore(undo)) == outcome(lambda: model.restore(undo))

    @rule(q=QUEUES, to=QUEUES, max=SOME)
    def move(self, q: str, to: str, max: int) -> None:
        if q == to:
            return
        moved = self.swept(q).pop(max)
        assert self.queue(q).move(self.mark + to, max) == len(moved)
        self.model(to).push(moved, next=False)

    # --- looking

    @rule(q=QUEUES, offset=st.integers(0, 5), shown=st.integers(0, 5))
    def state(self, q: str, offset: int, shown: int) -> None:
        model, state = self.swept(q), self.queue(q).state(shown, offset, 2)
        assert (state.count, state.reserved) == (len(model.waiting), len(model.held))
        assert (state.dead, state.waiters) == (len(model.dead().waiting), sum(model.waiters.values()))
        assert state.shown == [(text[:2], len(text)) for text in model.waiting[offset:][:shown]]

    @rule(q=QUEUES)
    def count(self, q: str) -> None:
        assert self.queue(q).count() == len(self.swept(q).waiting)

    @rule(q=QUEUES, offset=st.integers(0, 6), limit=st.none() | st.integers(0, 6))
    def all_and_walk(self, q: str, offset: int, limit: int | None) -> None:
        window = self.model(q).waiting[offset:][:limit]
        assert self.queue(q).all(offset, limit) == window
        assert list(itertools.chain(*walk(self.queue(q), offset, limit))) == window

    @rule(q=QUEUES, process=st.sampled_from(["p1", "p2"]), number=st.integers(0, 3))
    def announce(self, q: str, process: str, number: int) -> None:
        self.queue(q).announce(process, number, 60)
        self.swept(q).waiters.pop(process, None)
        self.model(q).waiters.update({process: number} if number else {})

    @rule(units=st.integers(1, 3))
    def time_passes(self, units: int) -> None:
        """Every lease ends that much earlier, which is what the clock of Redis does."""
        for q, model in self.models.items():
            for id, held in model.held.items():
                self.client.zincrby(self.queue(q).meta + "reserved", -units * UNIT * 1000, id)
                held.left -= units

    # --- what holds after every step

    @invariant()
    def valkey_holds_what_the_model_holds(self) -> None:
        keys, texts = set(), Counter(self.taken)
        seconds, micros = self.client.time()
        now = seconds * 1000 + micros // 1000
        for q, model in list(self.models.items()):
            queue = self.queue(q)
            waiting = self.client.lrange(queue.key, 0, -1)[::-1]
            assert waiting == model.waiting, f"the order in {q}"
            assert all(self.client.ttl(key) < 0 for key in (queue.key, queue.meta + "reserved", queue.meta + "bodies"))
            bodies = self.client.hgetall(queue.meta + "bodies")
            assert bodies == {id.encode(): b"%d:" % h.deliveries + h.text for id, h in model.held.items()}
            leases = self.client.zrange(queue.meta + "reserved", 0, -1, withscores=True)
            left = {id.decode(): max(0, math.ceil((score - now) / 1000 / UNIT)) for id, score in leases}
            assert left == {id: max(0, held.left) for id, held in model.held.items()}
            runs = self.client.hgetall(queue.meta + "attempts")
            known = {text: counts for text, counts in model.counts.items() if counts}
            assert {text: unpacked(each) for text, each in runs.items()} == known, f"what came back to {q}"
            texts.update(waiting)
            texts.update(body.partition(b":")[2] for body in bodies.values())
            for undo, cleared in model.cleared.items():
                kept = self.client.lrange(f"{queue.meta}cleared:{undo}", 0, -1)[::-1]
                assert kept == cleared
                texts.update(kept)
                keys.add(f"{queue.meta}cleared:{undo}")
            held = {"reserved": model.held, "bodies": model.held, "attempts": known, "acked": model.acked}
            keys |= {queue.meta + key for key, value in {**held, "waiters": model.waiters}.items() if value}
            keys |= {queue.key} if waiting else set()
            keys |= {queue._kept_answer(key) for key in model.answered}
        assert texts == self.pushed, "pushed = waiting + reserved + dead + taken"
        assert {key.decode() for key in self.keys()} == keys, "no other keys"

    def keys(self) -> list[bytes]:
        return list(self.client.scan_iter(f"*{self.mark}*", count=10_000))

    def teardown(self) -> None:
        if keys := self.keys():
            self.client.delete(*keys)


@pytest.mark.timeout(900)  # Hypothesis takes up to five minutes to find the shortest run that fails
def test_every_verb_does_what_the_model_does(valkey: Store) -> None:
    class OnValkey(EveryVerb):
        client = valkey.client()

    how = settings(
        max_examples=RANDOM_EXAMPLES or 120,
        derandomize=not RANDOM_EXAMPLES,
        stateful_step_count=50,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(OnValkey, settings=how)


# --- more at once than one script call handles


def ended_at_once(queue: ReliableQueue, number: int, deliveries: int) -> list[bytes]:
    """Let the leases of so many messages end at once, each having been delivered so often; return their texts."""
    texts = [b"%d" % n for n in range(number)]
    queue.push(*texts)
    for _ in range(deliveries):
        while queue.reserve(1000, max=1000).messages:
            pass
        for id in queue.client.zrange(queue.meta + "reserved", 0, -1):
            queue.client.zincrby(queue.meta + "reserved", -1_000_000, id)
    return texts


def test_thousands_of_leases_that_end_at_once_come_back_in_order(valkey: Store, name: str) -> None:
    queue = ReliableQueue(valkey.client(), name)
    texts = ended_at_once(queue, 2500, deliveries=1)
    queue.push(b"newer")
    assert queue.count() == 2501
    assert queue.all() == [*texts, b"newer"]


def test_a_message_that_is_released_twice_in_one_call_is_given_back_once(valkey: Store, name: str) -> None:
    for most, place in ((1, name + ".dead"), (2, name)):
        queue = ReliableQueue(valkey.client(), name, max_deliveries=most)
        queue.push(b"a")
        id = queue.reserve().messages[0].id
        assert queue.release(id, id) == (1 if place != name else 0)
        assert RedisQueue(queue.client, place).pop(9) == [b"a"]


def test_thousands_that_die_at_once_are_buried_once_each(valkey: Store, name: str) -> None:
    queue = ReliableQueue(valkey.client(), name, max_deliveries=1)
    texts = ended_at_once(queue, 2500, deliveries=1)
    state = queue.state()
    assert (state.count, state.reserved, state.dead) == (0, 0, 2500)
    assert sorted(RedisQueue(queue.client, name + ".dead").all(), key=int) == texts
