"""The contract of ReliableQueue on fakeredis, on the embedded Valkey and on Debian's redis-server.

Time is moved by the test: it rewrites the ends of leases, where the queue keeps them.
"""

import itertools
import re
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

import RedisQueue as module
from broker.connection import connect
from broker.reliable import ANSWER_KEPT, TAKEN_BYTES, UNDO_KEPT, Conflict, Delivery, ReliableQueue, Stale
from RedisQueue import keys_of
from tests.conftest import need
from tests.servers import BINARIES, Proxy, Scripted, Store, free_port, until
from web.errors import from_redis


@pytest.fixture
def queue(backend: Any, name: str) -> ReliableQueue:
    return ReliableQueue(backend, name)


def end_leases(queue: ReliableQueue, *ids: str) -> None:
    """Let leases have ended long ago, in the order of the ids; without ids all of them, in the order they would end."""
    key = queue.meta + "reserved"
    if due := [id.encode() for id in ids] or queue.client.zrange(key, 0, -1):
        queue.client.zadd(key, {id: number for number, id in enumerate(due, 1)})


def reserve(queue: ReliableQueue, max: int = 1, lease: float = 30) -> list[Delivery]:
    return queue.reserve(lease, max).messages


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


def counts(queue: ReliableQueue) -> tuple[int, int, int]:
    """Return how many wait, are reserved and are dead."""
    state = queue.state()
    return state.count, state.reserved, state.dead


def redis_time(queue: ReliableQueue) -> float:
    seconds, microseconds = queue.client.time()
    return float(seconds + microseconds / 1e6)


# --- reserve


def test_reserve_of_an_empty_queue_gives_nothing(queue: ReliableQueue) -> None:
    taken = queue.reserve()
    assert (taken.messages, taken.due, counts(queue)) == ([], None, (0, 0, 0))


def test_a_reserved_message_neither_waits_nor_is_lost(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    [delivery] = reserve(queue)
    assert (bytes(delivery), delivery.deliveries) == (b"a", 1)
    assert (queue.all(), counts(queue)) == ([b"b"], (1, 1, 0))


def test_a_deadline_is_the_lease_from_now_by_the_clock_of_redis(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    before = redis_time(queue)
    [delivery] = reserve(queue, lease=1.5)
    after = redis_time(queue)
    assert before + 1.499 <= delivery.deadline <= after + 1.501
    before = redis_time(queue)
    deadline = queue.extend(delivery.id, 43200)
    assert before + 43199.999 <= deadline <= redis_time(queue) + 43200.001
    assert queue.client.zscore(queue.meta + "reserved", delivery.id) == round(deadline * 1000)


def test_reserve_takes_up_to_max_oldest_first(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b", b"c")
    assert (reserve(queue, 2), reserve(queue, 2), reserve(queue, 2)) == ([b"a", b"b"], [b"c"], [])


def test_a_thousand_are_reserved_acked_and_released_at_once(queue: ReliableQueue) -> None:
    queue.push(*numbered(2001))
    first, second = reserve(queue, 1000), reserve(queue, 1000)
    assert (first, second) == (numbered(1000), numbered(1000, 1000))
    assert len({delivery.id for delivery in first + second}) == 2000
    assert queue.ack(*(delivery.id for delivery in first)) == 1000
    assert queue.release(*(delivery.id for delivery in second)) == 0
    assert queue.all() == numbered(1001, 1000)
    assert counts(queue) == (1001, 0, 0)


def test_ids_cannot_be_guessed_and_sort_as_they_were_reserved(queue: ReliableQueue) -> None:
    queue.push(*numbered(30))
    ids = [delivery.id for _ in range(3) for delivery in reserve(queue, 10)]
    assert ids == sorted(ids)
    assert len({id.rpartition("-")[2] for id in ids}) == 3
    assert all(re.fullmatch(r"[0-9]{16}-[0-9]{4}-[0-9a-f]{16}", id) for id in ids)


@pytest.mark.parametrize(
    "message",
    [bytes(range(256)), b"\0", b"\n", b"\r\n", b":", b"1:2:", b"2*3,", b"%s %d", b"\xff\xfe", b" ", "🐎".encode()],
)
def test_any_bytes_come_through_every_verb(queue: ReliableQueue, message: bytes) -> None:
    queue.push(message)
    for deliveries in range(1, queue.max_deliveries):
        [delivery] = reserve(queue)
        assert (delivery, delivery.deliveries) == (message, deliveries)
        queue.release(delivery.id)
        assert queue.all() == [message]
    reserve(queue)
    end_leases(queue)
    assert counts(queue) == (0, 0, 1)
    dead = ReliableQueue(queue.client, queue.name + ".dead")
    assert (queue.all(), dead.all()) == ([], [message])
    assert dead.move(queue.name, 10) == 1
    assert queue.take(1, "key").messages == queue.take(1, "key").messages == [message]
    queue.push_once("other", [message])
    assert (queue.clear()[0], queue.all()) == (1, [])
    queue.push(message, b"x")
    queue.remove(0, message)
    assert queue.all() == [b"x"]


def test_a_message_of_a_mebibyte_comes_back_whole(queue: ReliableQueue) -> None:
    message = secrets.token_bytes(1 << 20)
    queue.push(message)
    reserve(queue)
    end_leases(queue)
    assert queue.pop() == [message]


# --- ack


def test_what_is_acked_is_gone_for_good(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    one, two = reserve(queue, 2)
    assert queue.ack(one.id, two.id) == 2
    end_leases(queue)
    assert (queue.all(), counts(queue)) == ([], (0, 0, 0))
    assert queue.client.hlen(queue.meta + "bodies") == 0


def test_acking_twice_is_harmless(queue: ReliableQueue) -> None:
    queue.push(b"a", b"a")
    one, two = reserve(queue, 2)
    assert [queue.ack(one.id), queue.ack(one.id), queue.ack(one.id, two.id)] == [1, 1, 2]
    assert counts(queue) == (0, 0, 0)


def test_an_id_named_twice_counts_once(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    one, two = reserve(queue, 2)
    assert queue.ack(one.id, one.id) == 1
    queue.release(two.id, two.id)
    assert queue.all() == [b"b"]


def test_a_late_ack_changes_nothing(queue: ReliableQueue) -> None:
    queue.push(b"a")
    [late] = reserve(queue)
    end_leases(queue)
    for act in (queue.ack, queue.release, lambda id: queue.extend(id, 30)):
        with pytest.raises(Stale) as stale:
            act(late.id)
        assert stale.value.ids == [late.id]
    assert (queue.all(), counts(queue)) == ([b"a"], (1, 0, 0))
    [again] = reserve(queue)
    with pytest.raises(Stale):
        queue.ack(late.id)
    assert (again, again.deliveries, counts(queue)) == (b"a", 2, (0, 1, 0))
    assert queue.ack(again.id) == 1


def test_a_thousand_late_acks_remove_nothing(queue: ReliableQueue) -> None:
    queue.push(*numbered(1000))
    late = reserve(queue, 1000)
    end_leases(queue)
    again = reserve(queue, 1000)
    for delivery in late:
        with pytest.raises(Stale):
            queue.ack(delivery.id)
    assert again == numbered(1000)
    assert counts(queue) == (0, 1000, 0)


@pytest.mark.parametrize("verb", ["ack", "release"])
def test_one_stale_id_among_many_changes_none(queue: ReliableQueue, verb: str) -> None:
    queue.push(b"a", b"b")
    one, two = reserve(queue, 2)
    with pytest.raises(Stale) as stale:
        getattr(queue, verb)(one.id, "no such id", two.id, "\N{HORSE}")
    assert stale.value.ids == ["no such id", "\N{HORSE}"]
    assert counts(queue) == (0, 2, 0)
    assert queue.ack(one.id, two.id) == 2


def test_an_acked_message_cannot_be_released_or_extended(queue: ReliableQueue) -> None:
    queue.push(b"a")
    [delivery] = reserve(queue)
    queue.ack(delivery.id)
    for act in (queue.release, lambda id: queue.extend(id, 30)):
        with pytest.raises(Stale):
            act(delivery.id)
    assert counts(queue) == (0, 0, 0)


def test_an_id_of_another_queue_is_not_known(queue: ReliableQueue, backend: Any) -> None:
    queue.push(b"a")
    [delivery] = reserve(queue)
    other = ReliableQueue(backend, queue.name + "x")
    with pytest.raises(Stale):
        other.ack(delivery.id)
    assert (counts(queue), counts(other)) == ((0, 1, 0), (0, 0, 0))


def test_no_more_than_ten_thousand_acks_are_remembered(queue: ReliableQueue) -> None:
    queue.client.zadd(queue.meta + "acked", {f"old{n}": n for n in range(10_000)})
    queue.push(b"a")
    [delivery] = reserve(queue)
    queue.ack(delivery.id)
    assert queue.client.zcard(queue.meta + "acked") == 10_000
    assert queue.ack(delivery.id, "old1") == 2
    with pytest.raises(Stale):
        queue.ack("old0")


# --- release, and leases that end


def test_released_messages_are_popped_next_in_their_old_order(queue: ReliableQueue) -> None:
    queue.push(*numbered(5))
    a, b, c = reserve(queue, 3)
    queue.release(b.id, a.id, c.id)
    assert queue.all() == numbered(5)


def test_each_release_goes_before_the_one_before(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b", b"c")
    a, b, c = reserve(queue, 3)
    for delivery in (a, b, c):
        queue.release(delivery.id)
    assert queue.all() == [b"c", b"b", b"a"]


def test_messages_whose_lease_ended_return_oldest_first(queue: ReliableQueue) -> None:
    queue.push(*numbered(6))
    deliveries = [reserve(queue, lease=lease)[0] for lease in (50, 40, 30)]
    end_leases(queue, *(delivery.id for delivery in reversed(deliveries)))
    assert queue.all() == numbered(3, 3)  # the list itself: nobody has looked yet
    assert counts(queue) == (6, 0, 0)
    assert queue.all() == numbered(6)


@pytest.mark.parametrize("count", [999, 1000, 1001, 2500])
def test_more_leases_than_one_call_takes_return_in_order(queue: ReliableQueue, count: int) -> None:
    queue.push(*numbered(count + 3))
    while queue.client.llen(queue.key) > 3:
        reserve(queue, min(1000, queue.client.llen(queue.key) - 3))
    end_leases(queue)
    assert queue.pop(1) == [b"0"]
    assert queue.all() == numbered(count + 2, 1)
    assert counts(queue) == (count + 2, 0, 0)


def test_more_ended_leases_than_one_call_takes_are_buried_in_order(queue: ReliableQueue) -> None:
    once = ReliableQueue(queue.client, queue.name, max_deliveries=1)
    once.push(*numbered(2500))
    for _ in range(3):
        reserve(once, 1000)
    end_leases(once)
    assert counts(once) == (0, 0, 2500)
    dead = ReliableQueue(queue.client, queue.name + ".dead").all()
    assert sorted(dead, key=int) == numbered(2500)


def test_only_ended_leases_return(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b", b"c")
    _, b, _ = reserve(queue, 3)
    end_leases(queue, b.id)
    assert (counts(queue), queue.all()) == ((1, 2, 0), [b"b"])


@pytest.mark.parametrize(
    "verb",
    [
        lambda queue: queue.pop(),
        lambda queue: queue.reserve(),
        lambda queue: queue.take(1, "key"),
        lambda queue: queue.move(queue.name + "x", 9),
        lambda queue: queue.clear(),
        lambda queue: queue.remove(0, b"a"),
    ],
    ids=["pop", "reserve", "pop once", "move", "clear", "remove"],
)
def test_every_verb_that_takes_sees_what_came_back(queue: ReliableQueue, verb: Callable[[ReliableQueue], Any]) -> None:
    queue.push(b"a")
    reserve(queue)
    end_leases(queue)
    verb(queue)
    assert queue.client.llen(queue.key) == 0
    assert queue.client.zscore(queue.meta + "reserved", "a") is None


def test_count_and_state_tell_of_leases_that_ended(queue: ReliableQueue) -> None:
    queue.push(b"a")
    reserve(queue)
    assert (queue.count(), counts(queue)) == (0, (0, 1, 0))
    end_leases(queue)
    assert (queue.count(), counts(queue)) == (1, (1, 0, 0))


def test_nothing_taken_says_when_the_next_lease_ends(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    reserve(queue, lease=100)
    reserve(queue, lease=20)
    for taken in (queue.take(), queue.reserve()):
        assert taken.messages == []
        assert taken.due is not None
        assert 0 < taken.due <= 20


def test_an_extended_lease_does_not_end(queue: ReliableQueue) -> None:
    queue.push(b"a")
    [delivery] = reserve(queue, lease=1)
    queue.extend(delivery.id, 1000)
    due = queue.take().due
    assert due is not None
    assert 900 < due <= 1000
    queue.extend(delivery.id, 1)  # shorter is allowed too
    due = queue.take().due
    assert due is None or due <= 1


# --- deliveries and dead letters


def test_a_message_dies_after_exactly_so_many_deliveries(queue: ReliableQueue) -> None:
    queue.push(b"poison")
    for deliveries in range(1, 6):
        [delivery] = reserve(queue)
        assert delivery.deliveries == deliveries
        if deliveries % 2:
            buried = queue.release(delivery.id)
            assert buried == (deliveries == 5)
        else:
            end_leases(queue)
    assert (queue.all(), counts(queue)) == ([], (0, 0, 1))
    assert reserve(queue) == []


def test_one_delivery_is_all_where_one_is_the_most(queue: ReliableQueue) -> None:
    once = ReliableQueue(queue.client, queue.name, max_deliveries=1)
    once.push(b"a", b"b")
    deliveries = reserve(once, 2)
    assert once.release(*(delivery.id for delivery in deliveries)) == 2
    assert ReliableQueue(queue.client, queue.name + ".dead").all() == [b"a", b"b"]


def test_dead_letters_are_read_and_moved_back_with_the_same_verbs(queue: ReliableQueue) -> None:
    once = ReliableQueue(queue.client, queue.name, max_deliveries=1)
    once.push(*numbered(4))
    once.release(*(delivery.id for delivery in reserve(once, 4)))
    dead = ReliableQueue(queue.client, queue.name + ".dead")
    assert (dead.all(), dead.count(), dead.pop()) == (numbered(4), 4, [b"0"])
    [delivery] = reserve(dead)
    assert (delivery, delivery.deliveries, dead.ack(delivery.id)) == (b"1", 1, 1)
    assert dead.move(queue.name, 1000) == 2
    assert queue.all() == [b"2", b"3"]
    assert reserve(queue)[0].deliveries == 1  # they begin anew


def test_the_dead_of_the_dead_are_a_queue_too(queue: ReliableQueue) -> None:
    once = ReliableQueue(queue.client, queue.name + ".dead", max_deliveries=1)
    once.push(b"a")
    once.release(reserve(once)[0].id)
    assert counts(once) == (0, 0, 1)
    assert ReliableQueue(queue.client, queue.name + ".dead.dead").all() == [b"a"]
    assert counts(queue) == (0, 0, 0)


def test_copies_of_one_text_keep_their_deliveries_apart(queue: ReliableQueue) -> None:
    queue.push(b"same", b"same", b"same")
    [first] = reserve(queue)
    queue.release(first.id)
    found = reserve(queue, 3)
    assert [delivery.deliveries for delivery in found] == [2, 1, 1]
    queue.release(*(delivery.id for delivery in found))
    assert [delivery.deliveries for delivery in reserve(queue, 3)] == [3, 2, 2]


def test_a_pushed_copy_begins_anew_behind_one_that_came_back(queue: ReliableQueue) -> None:
    queue.push(b"same")
    queue.release(reserve(queue)[0].id)
    queue.push(b"same")
    assert [delivery.deliveries for delivery in reserve(queue, 2)] == [2, 1]


def test_once_the_queue_is_empty_no_deliveries_are_remembered(queue: ReliableQueue) -> None:
    queue.push(b"same")
    queue.release(reserve(queue)[0].id)
    queue.client.rpop(queue.key)  # a client that knows nothing of deliveries
    queue.push(b"other")
    queue.pop()
    assert not queue.client.exists(queue.meta + "attempts")
    queue.push(b"same")
    assert reserve(queue)[0].deliveries == 1


@pytest.mark.parametrize("verb", ["pop", "remove", "clear", "move"])
def test_what_is_taken_away_takes_its_deliveries_with_it(queue: ReliableQueue, verb: str) -> None:
    queue.push(b"same", b"other")
    queue.release(reserve(queue)[0].id)
    verbs: dict[str, Callable[[], Any]] = {
        "pop": lambda: queue.pop(),
        "remove": lambda: queue.remove(0, b"same"),
        "clear": lambda: queue.clear(),
        "move": lambda: queue.move(queue.name + "x", 1),
    }
    verbs[verb]()
    queue.push(b"same", next=True)
    assert reserve(queue)[0].deliveries == 1


# --- Idempotency-Key


@pytest.mark.parametrize("next", [False, True])
def test_one_key_pushes_once_and_answers_the_same(queue: ReliableQueue, next: bool) -> None:
    queue.push(b"x")
    assert [queue.push_once("key", [b"a", b"b"], next) for _ in range(3)] == [3, 3, 3]
    assert queue.all() == ([b"a", b"b", b"x"] if next else [b"x", b"a", b"b"])
    assert queue.push_once("other", [b"a", b"b"], next) == 5


def test_one_key_pushes_more_than_one_call_of_lua_can_unpack(queue: ReliableQueue) -> None:
    assert queue.push_once("key", numbered(20_001)) == 20_001
    assert queue.all() == numbered(20_001)
    queue.push_once("next", numbered(2500), next=True)
    assert queue.all(0, 2500) == numbered(2500)


@pytest.mark.parametrize(
    ("messages", "next"),
    [([b"b"], False), ([b"a"], True), ([b"a", b"a"], False), ([b"", b"a"], False), ([b"a1:b"], False)],
)
def test_one_key_with_another_push_is_a_conflict(queue: ReliableQueue, messages: list[bytes], next: bool) -> None:
    queue.push_once("key", [b"a"])
    with pytest.raises(Conflict):
        queue.push_once("key", messages, next)
    assert queue.all() == [b"a"]


def test_one_key_pops_once_and_answers_the_same(queue: ReliableQueue) -> None:
    queue.push(*numbered(5))
    assert [queue.take(2, "key").messages for _ in range(3)] == [[b"0", b"1"]] * 3
    assert queue.all() == numbered(3, 2)
    with pytest.raises(Conflict):
        queue.take(3, "key")
    with pytest.raises(Conflict):
        queue.push_once("key", [b"a"])
    assert queue.all() == numbered(3, 2)


def test_an_empty_pop_is_not_kept_for_its_key(queue: ReliableQueue) -> None:
    assert queue.take(1, "key").messages == []
    queue.push(b"a")
    assert [queue.take(1, "key").messages for _ in range(2)] == [[b"a"]] * 2


def test_an_answer_is_kept_for_a_day(queue: ReliableQueue) -> None:
    queue.push_once("push", [b"a"])
    queue.take(1, "pop")
    kept = queue.client.keys(queue.meta.replace("{", "\\{") + "once:*")
    assert len(kept) == 2
    assert all(ANSWER_KEPT - 60 < queue.client.ttl(key) <= ANSWER_KEPT == 86400 for key in kept)


# --- remove, clear, restore, move


def test_remove_takes_this_very_message_at_this_very_place(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b", b"a", b"b")
    queue.remove(2, b"a")
    assert queue.all() == [b"a", b"b", b"b"]
    for position, message in [(1, b"a"), (3, b"b"), (10**12, b"a"), (0, b"")]:
        with pytest.raises(Stale):
            queue.remove(position, message)
    assert queue.all() == [b"a", b"b", b"b"]


def test_clear_takes_all_and_restore_puts_it_back_once(queue: ReliableQueue) -> None:
    queue.push(*numbered(3))
    count, undo = queue.clear()
    assert (count, queue.all()) == (3, [])
    assert undo is not None
    assert queue.client.exists(queue.meta + "cleared:" + undo)
    assert (queue.restore(undo), queue.all()) == (3, numbered(3))
    assert queue.client.ttl(queue.key) == -1
    with pytest.raises(Stale):
        queue.restore(undo)


def test_clear_of_an_empty_queue_leaves_nothing_to_restore(queue: ReliableQueue) -> None:
    assert queue.clear() == (0, None)
    with pytest.raises(Stale):
        queue.restore("never")


@pytest.mark.parametrize("since", [1, 2, 5])
def test_restored_messages_go_before_what_was_pushed_since(queue: ReliableQueue, since: int) -> None:
    queue.push(*numbered(2))
    _, undo = queue.clear()
    queue.push(*numbered(since, 2))
    assert undo is not None
    assert (queue.restore(undo), queue.all()) == (2, numbered(2 + since))
    assert queue.client.ttl(queue.key) == -1


def test_two_clears_are_restored_apart(queue: ReliableQueue) -> None:
    queue.push(b"a")
    _, first = queue.clear()
    queue.push(b"b")
    _, second = queue.clear()
    assert first is not None
    assert second is not None
    assert (queue.restore(second), queue.all()) == (1, [b"b"])
    assert (queue.restore(first), queue.all()) == (1, [b"a", b"b"])


def test_a_cleared_queue_is_kept_an_hour(queue: ReliableQueue) -> None:
    queue.push(b"a")
    _, undo = queue.clear()
    assert UNDO_KEPT - 60 < queue.client.ttl(f"{queue.meta}cleared:{undo}") <= UNDO_KEPT == 3600


def test_clear_leaves_what_is_reserved(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    [delivery] = reserve(queue)
    assert queue.clear()[0] == 1
    queue.release(delivery.id)
    assert queue.all() == [b"a"]


def test_move_keeps_the_order_behind_what_is_there(queue: ReliableQueue) -> None:
    to = ReliableQueue(queue.client, queue.name + "x")
    to.push(b"x")
    queue.push(*numbered(5))
    assert (queue.move(to.name, 3), queue.move(to.name, 9), queue.move(to.name, 9)) == (3, 2, 0)
    assert (queue.all(), to.all()) == ([], [b"x", *numbered(5)])


@pytest.mark.parametrize("verb", ["take", "reserve", "move"])
def test_a_batch_ends_with_the_message_that_makes_it_too_large(queue: ReliableQueue, name: str, verb: str) -> None:
    big = b"x" * (TAKEN_BYTES // 4 + 1)
    queue.push(b"small", *[big] * 9)
    took: Callable[[], int] = {
        "take": lambda: len(queue.take(1000).messages),
        "reserve": lambda: len(reserve(queue, 1000)),
        "move": lambda: queue.move(name + "-to", 1000),
    }[verb]
    assert [took() for _ in range(4)] == [5, 4, 1, 0]


def test_one_move_is_at_most_a_thousand(queue: ReliableQueue) -> None:
    to = ReliableQueue(queue.client, queue.name + "x")
    queue.push(*numbered(1500))
    assert [queue.move(to.name, 10**12), queue.move(to.name, 10**12)] == [1000, 500]
    assert to.all() == numbered(1500)


# --- state


def test_state_shows_the_first_bytes_and_whole_sizes(queue: ReliableQueue) -> None:
    queue.push(b"abcdef", b"gh", b"", "é".encode())
    assert queue.state(2, 0, 3).shown == [(b"abc", 6), (b"gh", 2)]
    assert queue.state(9, 1, 1).shown == [(b"g", 2), (b"", 0), (b"\xc3", 2)]
    assert queue.state(5, 4, 9).shown == queue.state(5, 10**12, 9).shown == []


def test_waiters_are_summed_over_processes_and_forgotten_in_time(queue: ReliableQueue) -> None:
    queue.announce("one", 2, 30)
    queue.announce("two", 3, 30)
    assert queue.state().waiters == 5
    queue.announce("one", 1, 30)
    assert queue.state().waiters == 4
    queue.announce("two", 0, 30)
    assert queue.state().waiters == 1
    queue.announce("gone", 7, 0)  # what it said does not hold any more
    assert queue.state().waiters == 1


# --- the lists underneath


def test_raw_clients_push_and_pop_beside_all_this(queue: ReliableQueue) -> None:
    queue.client.lpush(queue.key, "raw", "later")
    [delivery] = reserve(queue)
    queue.release(delivery.id)
    assert queue.client.lrange(queue.key, 0, -1) == [b"later", b"raw"]
    assert queue.client.rpop(queue.key) == b"raw"
    assert reserve(queue) == [b"later"]


def use_every_verb(queue: ReliableQueue) -> None:
    """Leave something behind of everything that can be left behind."""
    queue.push(*numbered(20))
    queue.push_once("push", [b"20"])
    queue.take(1, "pop")
    once = ReliableQueue(queue.client, queue.name, queue.prefix, max_deliveries=1)
    once.release(reserve(once)[0].id)
    kept, acked, back = reserve(queue, 3)
    queue.extend(kept.id, 60)
    queue.ack(acked.id)
    queue.release(back.id)
    queue.announce("process", 1, 30)
    _, undo = queue.clear()
    queue.push(*numbered(9, 100))
    queue.release(reserve(queue)[0].id)
    queue.remove(0, b"100")
    queue.restore(str(undo))
    queue.clear()
    queue.push(*numbered(9, 100))
    queue.release(reserve(queue)[0].id)
    dead = ReliableQueue(queue.client, queue.name + ".dead", queue.prefix)
    dead.push(b"d", b"e")
    reserve(dead)
    queue.move(dead.name, 1)
    queue.release(reserve(queue)[0].id)
    queue.state(9, 0, 9)
    queue.all()


def documented() -> dict[str, str]:
    """Return the map of keys in RedisQueue.py: a pattern of each key, and its type."""
    rows = re.findall(r"^ +(\{queue:jobs\}:\S+|queue:jobs) +(list|zset|hash) ", str(module.__doc__), re.MULTILINE)
    assert len(rows) == 9, rows
    return {re.sub("<[a-z]+>", "[0-9a-f]+", re.escape(key)): kind for key, kind in rows}


# Seconds after which a key ends by itself at the latest; the others stay as long as they hold something.
LIVES = {"acked": 3600, "waiters": 60, "once": ANSWER_KEPT, "cleared": UNDO_KEPT}


def test_every_key_is_on_the_map_and_ends_when_it_says(queue: ReliableQueue, backend: Any) -> None:
    use_every_verb(queue)
    patterns, seen = documented(), set()
    for key in backend.scan_iter(match=f"*{queue.name}[^0-9]*", count=10_000):
        text = key.decode().replace(queue.name, "jobs").replace("}:dead:", "}:")
        found = [pattern for pattern in patterns if re.fullmatch(pattern, text)]
        assert found, f"{text} is not on the map"
        pattern = found[0]
        seen.add(pattern)
        assert backend.type(key).decode() == patterns[pattern], text
        own = text.partition("}:")[2].partition(":")[0]
        if own in LIVES:
            assert LIVES[own] - 60 < backend.ttl(key) <= LIVES[own], text
        else:
            assert backend.ttl(key) == -1, text
    assert backend.exists(queue.key)
    assert seen | {re.escape("queue:jobs")} == set(patterns)


def test_used_up_queues_leave_only_what_ends_by_itself(queue: ReliableQueue, backend: Any) -> None:
    queue.push(*numbered(9))
    queue.release(reserve(queue)[0].id)
    queue.ack(*(delivery.id for delivery in reserve(queue, 9)))
    assert [key for key in backend.scan_iter(match=f"*{queue.name}*", count=10_000) if backend.ttl(key) < 0] == []


def slot(key: str) -> int:
    """Return the Cluster slot of a key (CRC16 of what stands in its first braces)."""
    tag = re.search(r"\{([^}]+)\}", key)
    crc = 0
    for byte in (tag[1] if tag else key).encode():
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ (0x1021 if crc & 0x8000 else 0)
    return (crc & 0xFFFF) % 16384


@pytest.mark.parametrize("name", ["jobs", "a.dead", "a:b", ".dead", "jobs.dead.dead", "A-Z_0.9"])
@pytest.mark.parametrize("prefix", ["queue:", "", "q"])
def test_all_keys_of_a_queue_lie_in_one_slot(valkey: Store, name: str, prefix: str) -> None:
    queue = ReliableQueue(None, name, prefix)
    keys = [*queue._keys, queue._kept_answer("key"), queue._cleared("undo"), keys_of(name + ".dead", prefix)[0]]
    assert len({slot(key) for key in keys}) == 1
    assert {valkey.client().cluster("KEYSLOT", key) for key in keys} == {slot(queue.key)}


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Store]]:
    """Clusters of one node, which refuse commands across slots as any Cluster does."""
    options = ("--cluster-enabled", "yes", "--cluster-port")
    kinds = [kind for kind in BINARIES if BINARIES[kind]]
    stores = {kind: Store(kind, tmp_path_factory.mktemp(kind), *options, str(free_port())) for kind in kinds}
    for store in stores.values():
        store.client().execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    yield stores
    for store in stores.values():
        store.end()


@pytest.fixture(params=BINARIES)
def cluster(request: pytest.FixtureRequest, clusters: dict[str, Store]) -> Any:
    need(request.param)
    client = clusters[request.param].client()
    until(lambda: client.cluster("INFO")["cluster_state"] == "ok")
    return client


@pytest.mark.parametrize("prefix", ["queue:", ""])
def test_every_verb_works_on_a_cluster(cluster: Any, name: str, prefix: str) -> None:
    queue = ReliableQueue(cluster, name, prefix)
    use_every_verb(queue)
    end_leases(queue)
    assert counts(queue)[1] == 0


def test_a_move_to_another_slot_moves_nothing_and_says_so(cluster: Any, name: str) -> None:
    queue, to = ReliableQueue(cluster, name), ReliableQueue(cluster, name + "x")
    queue.push(b"a")
    with pytest.raises(redis.RedisError) as caught:
        queue.move(to.name, 1)
    refusal = from_redis(caught.value)
    assert (refusal.status, refusal.error) == (409, "cross_slot")
    assert (queue.all(), to.all()) == ([b"a"], [])
    assert queue.move(name + ".dead", 1) == 1


@pytest.mark.parametrize("server", ["valkey", "redis7"])
def test_scripts_touch_no_key_that_they_do_not_declare(server: str, request: pytest.FixtureRequest, name: str) -> None:
    store: Store = request.getfixturevalue(server)
    client = store.client()
    calls: list[str] = []
    with client.monitor() as monitor:
        use_every_verb(ReliableQueue(client, name))
        client.echo(f"end of {name}")
        while calls[-1:] != [f"ECHO end of {name}"]:
            command = monitor.next_command()
            calls.append(("lua " if command["client_type"] == "lua" else "") + command["command"])
    allowed: list[str] = []
    checked = 0
    for call in calls:
        words = call.split(" ")
        if words[0] in ("EVALSHA", "EVAL"):  # the text of a script has spaces too, but its keys have none
            allowed = re.findall(rf"(?:\{{queue:{name}\}}:\S+|queue:{name}\b\S*)", call)
        elif words[0] == "lua" and words[1].upper() != "TIME":
            checked += 1
            assert words[2] in allowed, call
            if words[1].upper() in ("RENAME", "LMOVE"):
                assert words[3] in allowed, call
    assert checked > 100


# --- memory is full


@pytest.fixture(scope="module", params=["valkey", "redis"])
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of a server that is full from `fill()` on."""
    need(request.param)
    store = Store(request.param, tmp_path_factory.mktemp("full"))
    yield store.client()
    store.end()


def fill(client: Any) -> None:
    client.config_set("maxmemory", 1)


def drain(client: Any) -> None:
    client.config_set("maxmemory", 0)


def test_a_full_server_refuses_pushes_and_lets_every_other_verb_work(full: Any, name: str) -> None:
    queue = ReliableQueue(full, name)
    drain(full)
    queue.push(*numbered(20))
    fill(full)
    pushes: list[Callable[[], int]] = [
        lambda: queue.push(b"a"),
        lambda: queue.push(b"a", next=True),
        lambda: queue.push_once("push", [b"a"]),
    ]
    for push in pushes:
        with pytest.raises(redis.OutOfMemoryError) as caught:
            push()
        assert (from_redis(caught.value).status, from_redis(caught.value).error) == (507, "redis_full")
    assert queue.pop() == [b"0"]
    assert queue.take(1, "pop").messages == queue.take(1, "pop").messages == [b"1"]
    kept, acked, back, late = reserve(queue, 4)
    queue.extend(kept.id, 60)
    queue.ack(acked.id)
    queue.release(back.id)
    end_leases_although_full(queue, late.id)
    assert queue.count() == 16
    assert queue.all(0, 3) == [b"5", b"4", b"6"]
    queue.remove(0, b"5")
    once = ReliableQueue(full, name, max_deliveries=1)
    once.release(reserve(once)[0].id)
    assert counts(queue) == (14, 1, 1)
    cleared, undo = queue.clear()
    assert (cleared, queue.restore(str(undo))) == (14, 14)
    assert queue.move(name + "x", 2) == 2
    assert ReliableQueue(full, name + ".dead").move(name, 9) == 1
    queue.announce("process", 1, 30)
    assert queue.state(1, 0, 9).waiters == 1
    assert queue.all() == [*numbered(12, 8), b"4"]


def end_leases_although_full(queue: ReliableQueue, *ids: str) -> None:
    script = "#!lua flags=allow-oom\nfor _, id in ipairs(ARGV) do redis.call('ZADD', KEYS[1], 1, id) end"
    queue.client.eval(script, 1, queue.meta + "reserved", *ids)


def test_a_full_server_is_emptied_by_reserve_and_ack(full: Any, name: str) -> None:
    queue = ReliableQueue(full, name)
    drain(full)
    queue.push(*numbered(5000))
    fill(full)
    seen: list[bytes] = []
    while found := reserve(queue, 1000):
        seen += found
        queue.ack(*(delivery.id for delivery in found))
    assert (seen, counts(queue)) == (numbered(5000), (0, 0, 0))


# --- keys of a wrong type


OWN = ["list", "reserved", "bodies", "attempts", "dead", "acked", "waiters"]


def damage(queue: ReliableQueue, key: str) -> str:
    """Put something that no queue makes under one of its keys."""
    whole = dict(zip(OWN, queue._keys, strict=True))[key]
    queue.client.delete(whole)
    queue.client.set(whole, "not what belongs here")
    return whole


def each_verb(queue: ReliableQueue, id: str = "no such id") -> dict[str, Callable[[], Any]]:
    return {
        "pop": lambda: queue.pop(2),
        "pop once": lambda: queue.take(2, "key"),
        "reserve": lambda: queue.reserve(30, 2),
        "ack": lambda: queue.ack(id),
        "release": lambda: queue.release(id),
        "extend": lambda: queue.extend(id, 30),
        "remove": lambda: queue.remove(0, b"a"),
        "clear": lambda: queue.clear(),
        "move": lambda: queue.move(queue.name + "x", 2),
        "restore": lambda: queue.restore("undo"),
        "state": lambda: queue.state(2, 0, 9),
        "announce": lambda: queue.announce("process", 1, 30),
    }


@pytest.mark.parametrize("key", OWN[1:])
def test_a_verb_that_fails_on_a_wrong_type_took_nothing(backend: Any, name: str, key: str) -> None:
    for number, verb in enumerate(each_verb(ReliableQueue(None))):
        queue = ReliableQueue(backend, f"{name}.{number}")
        queue.push(b"a", b"b", b"c")
        wrong = damage(queue, key)
        try:
            each_verb(queue)[verb]()
        except (redis.ResponseError, Stale):
            assert queue.client.lrange(queue.key, 0, -1) == [b"c", b"b", b"a"], verb
            assert not any(queue.client.exists(other) for other in queue._keys[1:] if other != wrong), verb
        assert queue.client.get(wrong) == b"not what belongs here", verb


@pytest.mark.parametrize("key", ["list", "attempts", "dead", "acked", "waiters"])
def test_a_wrong_type_loses_nothing_that_is_reserved(backend: Any, name: str, key: str) -> None:
    cases = itertools.product(each_verb(ReliableQueue(None)), (True, False), (1, 5))
    for number, (verb, ended, most) in enumerate(cases):
        queue = ReliableQueue(backend, f"{name}.{number}", max_deliveries=most)
        queue.push(b"a", b"b")
        one, _ = reserve(queue, 2)
        wrong = damage(queue, key)
        if ended:
            end_leases(queue)
        try:
            each_verb(queue, one.id)[verb]()
        except (redis.ResponseError, Stale):
            queue.client.delete(wrong)
            queue.state()
            end_leases(queue)
            queue.state()
            dead = ReliableQueue(queue.client, queue.name + ".dead")
            assert sorted(queue.all() + dead.all()) == [b"a", b"b"], (verb, ended, most)


def test_a_move_into_what_is_no_list_moves_nothing(queue: ReliableQueue) -> None:
    queue.push(b"a")
    queue.client.set("queue:" + queue.name + "x", "text")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        queue.move(queue.name + "x", 1)
    assert queue.all() == [b"a"]


def test_a_list_of_a_wrong_type_is_told_as_such(queue: ReliableQueue) -> None:
    queue.client.set(queue.key, "text")
    for verb in ("pop", "reserve", "remove", "clear", "state"):
        with pytest.raises(redis.ResponseError) as caught:
            each_verb(queue)[verb]()
        assert (from_redis(caught.value).status, from_redis(caught.value).error) == (409, "wrong_type"), verb


# --- on the wire


@pytest.mark.parametrize("server", ["valkey", "redis7"])
def test_each_verb_is_one_command_and_none_is_sent_again(
    server: str, request: pytest.FixtureRequest, name: str
) -> None:
    store: Store = request.getfixturevalue(server)
    use_every_verb(ReliableQueue(store.client(), name + "known"))  # the scripts are known from now on
    proxy = Proxy(store.port)
    queue = ReliableQueue(connect(proxy.url), name)
    queue.push(b"a", b"b")
    [delivery] = reserve(queue)
    queue.ack(delivery.id)
    queue.pop()
    queue.count()
    assert proxy.commands == ["LPUSH", "EVALSHA", "EVALSHA", "EVALSHA", "EVALSHA"]
    proxy.commands.clear()
    for verb in ("pop", "pop once", "reserve", "clear", "move", "state"):
        proxy.cut("EVALSHA")
        with pytest.raises(redis.ConnectionError) as caught:
            each_verb(queue)[verb]()
        assert from_redis(caught.value).error == "unknown", verb
    assert proxy.commands == ["EVALSHA"] * 6
    proxy.end()


def test_a_script_that_redis_has_forgotten_is_sent_again_whole(valkey: Store, name: str) -> None:
    queue = ReliableQueue(valkey.client(), name)
    queue.push(b"a", b"b")
    queue.pop()
    queue.client.script_flush()
    assert queue.pop() == [b"b"]
    assert queue.push_once("key", [b"c"]) == 1


def test_an_old_redis_is_refused_in_words(scripted: Callable[..., Scripted], name: str) -> None:
    old = scripted(
        b"-ERR Error compiling script (new function): user_script:1: unexpected symbol near '#'\r\n",
        hello=b"-ERR unknown command `HELLO`\r\n",
    )
    queue = ReliableQueue(connect(old.url), name)
    with pytest.raises(redis.RedisError) as caught:
        queue.reserve()
    refusal = from_redis(caught.value)
    assert (refusal.status, refusal.error) == (503, "redis_too_old")
    assert "7.0" in refusal.message


@pytest.mark.parametrize("server", ["valkey", "redis7"])
def test_ids_and_times_are_whole_at_any_clock(server: str, request: pytest.FixtureRequest, name: str) -> None:
    """Lua writes large numbers as 1.7e+12 unless it is told not to."""
    store: Store = request.getfixturevalue(server)
    queue = ReliableQueue(store.client(), name)
    queue.push(b"a")
    [delivery] = reserve(queue)
    queue.announce("process", 3, 30)
    assert abs(int(delivery.id[:16]) / 1e6 - time.time()) < 60
    assert re.fullmatch(rb"3:[0-9]{13}", queue.client.hget(queue.meta + "waiters", "process"))
