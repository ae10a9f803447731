"""settle: acks, releases and extensions in one script, each for itself."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from broker.connections.connection import connect
from broker.models import Ack, Delivery, Extend, LeaseExpired, Release, Settled
from broker.queue import ReliableQueue
from tests.broker.helpers import counts, dead_letters, end_leases, numbered, reserve, settlement, with_one_delivery
from tests.servers import Store


def reserve_ids(queue: ReliableQueue, number: int) -> list[str]:
    queue.push(*numbered(number))
    return [one.id for one in reserve(queue, number)]


def test_each_message_is_settled_in_its_own_way(engine: Any, name: str) -> None:
    queue = ReliableQueue(connect(engine.url), name)
    done, with_result, now, later, dead, kept = reserve_ids(queue, 6)
    found = queue.settle(
        [Ack(done), Ack(with_result, "job", b"\x00\xff")],
        [Release(now), Release(later, delay=100, reason="later"), Release(dead, dead=True, reason="why", job="other")],
        [Extend(kept, 4000)],
    )
    assert found == Settled(acked=2, released=3, dead=1, extended=1, stale=[])
    assert (queue.all(), dead_letters(queue).all()) == ([b"2"], [b"4"])
    state = queue.state().counts
    assert (state.reserved, state.delayed, state.dead) == (1, 1, 1)
    [delayed], [reserved] = queue.in_flight("delayed", 9, 9), queue.in_flight("reserved", 9, 9)
    assert (delayed.id, delayed.head, delayed.details.reason) == (later + "-d", b"3", "later")
    assert (reserved.id, reserved.deadline - time.time() > 3900) == (kept, True)
    result, failure = queue.result("job"), queue.result("other")
    assert result and (result.result, result.failed) == (b"\x00\xff", None)
    assert failure and failure.failed == "why"


def test_a_late_id_spoils_nothing_and_changes_nothing(queue: ReliableQueue) -> None:
    queue.push(*numbered(6))
    late = [one.id for one in reserve(queue, 3)]
    end_leases(queue)
    queue.sweep()
    held = [one.id for one in reserve(queue, 6)]
    found = queue.settle(
        [Ack(late[0], "late", b"no"), Ack(held[0], "job", b"yes")],
        [Release(held[1]), Release(late[1], dead=True, job="late")],
        [Extend(late[2]), Extend(held[2]), Extend("\N{HORSE}")],
    )
    assert found == Settled(acked=1, released=1, dead=0, extended=1, stale=[late[0], late[1], late[2], "\N{HORSE}"])
    assert (counts(queue), queue.all()) == ((1, 4, 0), [b"1"])
    assert (queue.result("late"), queue.result("job") is None) == (None, False)


def test_an_id_acked_before_is_acked_again_and_one_named_twice_is_stale(queue: ReliableQueue) -> None:
    one, two = reserve_ids(queue, 2)
    queue.ack(one)
    found = queue.settle([Ack(one, "job", b"again"), Ack(two)], [Release(two)], [Extend(one)])
    assert found == Settled(acked=2, released=0, dead=0, extended=0, stale=[two, one])
    assert (counts(queue), queue.result("job") is None) == ((0, 0, 0), False)


def test_messages_at_their_last_delivery_are_buried_and_their_jobs_fail(queue: ReliableQueue) -> None:
    one, two = reserve_ids(queue, 2)
    single = with_one_delivery(queue)
    assert single.settle([], [Release(one, delay=9, reason="too late", job="job")]).dead == 1
    assert single.release(two, reason="no", job="other") == 1
    assert [found.failed for job in ("job", "other") if (found := queue.result(job))] == ["too late", "no"]


def test_a_delivery_whose_work_was_not_started_does_not_count(engine: Any, name: str) -> None:
    queue = with_one_delivery(ReliableQueue(connect(engine.url), name))
    ways: list[Callable[[str], int]] = [
        lambda id: queue.release(id, unstarted=True, job="job"),
        lambda id: queue.settle([], [Release(id, unstarted=True, job="job")]).dead,
    ]
    for give_back in ways:
        queue.push(*numbered(2))
        one, _ = reserve(queue, 2)
        assert give_back(one.id) == 0
        [again] = reserve(queue)
        assert (again, again.deliveries) == (b"0", 1)
        assert queue.release(again.id, reason="why") == 1
        assert queue.result("job") is None
        queue.clear()


def test_a_job_that_is_tried_again_has_not_failed(queue: ReliableQueue) -> None:
    one, two = reserve_ids(queue, 2)
    assert (queue.release(one, job="job", reason="why"), queue.result("job")) == (0, None)
    assert queue.settle([], [Release(two, delay=9, job="job")]).released == 1
    assert queue.result("job") is None


def test_a_late_release_stores_no_failure(queue: ReliableQueue) -> None:
    [id] = reserve_ids(queue, 1)
    end_leases(queue)
    with pytest.raises(LeaseExpired):
        queue.release(id, dead=True, job="job")
    assert queue.result("job") is None


def test_a_reservation_knows_after_how_many_deliveries_it_is_buried(queue: ReliableQueue) -> None:
    queue.push(b"a")
    tries: list[Delivery] = []
    while (found := reserve(queue)) and not (tries and tries[-1].deliveries == tries[-1].max_deliveries):
        queue.release(found[0].id)
        tries += found
    assert [(one.deliveries, one.max_deliveries) for one in tries] == [(n, 5) for n in range(1, 6)]


def test_leases_are_extended_together_or_not_at_all(queue: ReliableQueue) -> None:
    ids = reserve_ids(queue, 3)
    deadline = queue.extend(ids, 4000)
    assert {one.deadline for one in queue.in_flight("reserved", 9, 9)} == {deadline}
    with pytest.raises(LeaseExpired) as raised:
        queue.extend([ids[0], "gone", ids[1]], 1)
    assert raised.value.ids == ["gone"]
    assert {one.deadline for one in queue.in_flight("reserved", 9, 9)} == {deadline}


def test_a_thousand_messages_are_settled_at_once(queue: ReliableQueue) -> None:
    ids = reserve_ids(queue, 1000)
    acks, releases = [Ack(id, "job" + id, b"x") for id in ids[:400]], [Release(id) for id in ids[400:800]]
    found = queue.settle(acks, releases, [Extend(id) for id in ids[800:]])
    assert found == Settled(acked=400, released=400, dead=0, extended=200, stale=[])
    assert (counts(queue), queue.all()) == ((400, 200, 0), numbered(400, 400))


def test_more_bytes_than_one_call_returns_are_all_released(queue: ReliableQueue) -> None:
    texts = [b"%02d" % number + b"x" * 4_000_000 for number in range(6)]
    queue.push(*texts)
    ids = [one.id for _ in range(2) for one in reserve(queue, 5)]
    assert queue.settle([], [Release(id) for id in ids]).released == 6
    assert (queue.all(), counts(queue)) == (texts, (6, 0, 0))
    ids = [one.id for _ in range(2) for one in reserve(queue, 5)]
    assert with_one_delivery(queue).release(*ids, unstarted=True) == 0
    assert (queue.all(), counts(queue)) == (texts, (6, 0, 0))


def test_messages_that_one_call_cannot_return_are_due_at_once(
    queue: ReliableQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the process that released them is killed, the next sweep of another one returns them."""
    for number in range(6):
        queue.push(b"%02d" % number + b"x" * 4_000_000)
    ids = [one.id for _ in range(2) for one in reserve(queue, 5)]
    with monkeypatch.context() as patched:
        patched.setattr(queue, "sweep", lambda: None)
        assert queue.release(*ids, dead=True, reason="why") == 6
    _, none_ends_before, _ = queue.client.get(queue.key_prefix + "clock").split(b":")
    assert int(none_ends_before) <= queue.client.time()[0] * 1000 + 1000
    assert queue.client.llen(dead_letters(queue).key) < 6
    queue.sweep()
    found = [dead_letters(queue).details(1, offset, 9)[0] for offset in range(6)]
    assert [details.reason for _, _, details in found] == ["why"] * 6


def test_a_full_server_settles_all_but_results(own_store: Callable[..., Store]) -> None:
    queue = ReliableQueue(own_store().client(), "full")
    ids = reserve_ids(queue, 3)
    queue.client.config_set("maxmemory", 1)
    with pytest.raises(redis.OutOfMemoryError):
        queue.settle(*settlement(*ids))
    assert counts(queue) == (0, 3, 0)
    found = queue.settle([Ack(ids[0])], [Release(ids[1], dead=True)], [Extend(ids[2])])
    assert found == Settled(acked=1, released=1, dead=1, extended=1, stale=[])
