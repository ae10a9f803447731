"""What a consumer has in hand: how much it prefetches, and what it renews, settles and gives back. No server."""

import math
from typing import Any

import pytest
from seequeue.core.models import Settled
from seequeue.core.verbs import Reserved
from seequeue.work.hand import KEPT_SECONDS, LINGER, MAX_PREFETCH, MAX_SETTLED, Hand, Job


def message(name: str, *, deliveries: int = 1, max_deliveries: int = 5, queue: str | None = None) -> Reserved:
    made = Reserved(name.encode())
    made.id, made.queue, made.deliveries, made.max_deliveries = name, queue, deliveries, max_deliveries
    return made


def messages(number: int, **facts: Any) -> list[Reserved]:
    return [message(str(one), **facts) for one in range(number)]


def finish(hand: Hand, job: Job, now: float) -> None:
    hand.finish(job, "acks", job.message.id, now)


def work(hand: Hand, seconds: float, *, now: float = 0.0, number: int = 30) -> float:
    """Do jobs that take so long; return when they are done, and settled."""
    for one in range(number):
        hand.receive([message(f"done{one}")], now)
        [job] = hand.take(now)
        now += seconds
        finish(hand, job, now)
        settle(hand, now)
    return now


def settle(hand: Hand, now: float, *stale: str) -> dict[str, list[Any]]:
    """Send the next request, and answer it."""
    request = hand.settlement(now)
    if request is None:
        return {}
    hand.settled(request, Settled(stale=stale))
    return {name: items for name, items in request.items(hand.lease).items() if items}


def unstarted(id: str) -> dict[str, Any]:
    return {"id": id, "unstarted": True}


def test_without_a_measure_only_idle_places_are_filled() -> None:
    hand = Hand(slots=4, batch=3)
    assert hand.want(0) == 0
    hand.idle = 2
    assert hand.want(0) == 6


@pytest.mark.parametrize(
    ("seconds", "slots", "batch", "prefetch"),
    [(0.01, 1, 1, 10), (0.01, 4, 1, 40), (0.04, 1, 5, 12), (0.3, 1, 1, 0), (0.3, 4, 1, 1), (1e-6, 1, 1, MAX_PREFETCH)],
)
def test_as_much_is_prefetched_as_starts_within_a_tenth_of_a_second(
    seconds: float, slots: int, batch: int, prefetch: int
) -> None:
    hand = Hand(slots=slots, batch=batch)
    now = work(hand, seconds)
    hand.receive([message("runs")], now)
    hand.take(now)
    assert abs(hand.want(now) - prefetch) <= 1


def test_it_asks_again_when_half_of_what_was_prefetched_is_used() -> None:
    hand = Hand()
    now = work(hand, 0.0095)
    hand.receive(messages(10), now)
    for left in (9, 8, 7, 6):
        [job] = hand.take(now)
        finish(hand, job, now + 0.0095)
        assert (len(hand.waiting), hand.want(now)) == (left, 0)
    hand.take(now)
    assert hand.want(now) > 0


def test_nothing_is_prefetched_while_all_work_takes_longer_than_before() -> None:
    hand = Hand(slots=2)
    now = work(hand, 0.001)
    hand.receive(messages(2), now)
    hand.take(now), hand.take(now)
    assert hand.want(now) > 0
    assert hand.want(now + 0.2) == 0
    hand.idle = 1
    assert hand.want(now + 0.2) > 0


def test_large_messages_are_not_prefetched() -> None:
    hand = Hand()
    now = work(hand, 0.001)
    hand.receive([message("x" * (9 << 20)), message("a")], now)
    assert hand.want(now) == 0
    hand.take(now)
    assert hand.want(now) > 0


def test_messages_start_in_their_order_in_batches_of_one_queue() -> None:
    hand = Hand(batch=3)
    hand.receive([message(name, queue=name[0]) for name in ("a1", "a2", "b1", "b2", "b3", "b4")], 0)
    taken = [[job.message.id for job in hand.take(0)] for _ in range(4)]
    assert taken == [["a1", "a2"], ["b1", "b2", "b3"], ["b4"], []]


def test_a_message_whose_lease_ended_in_hand_is_not_started() -> None:
    hand = Hand(lease=30)
    hand.receive([message("a")], 5)
    assert hand.take(35) == []


def test_what_waits_for_half_a_second_is_given_back_in_order() -> None:
    hand = Hand()
    hand.receive(messages(3), 0)
    hand.take(0)
    assert (settle(hand, 0.4), hand.next_time()) == ({}, 0.5)
    assert settle(hand, 0.6) == {"releases": [unstarted("1"), unstarted("2")]}
    assert hand.next_time() == 10  # the next renewal, so that the driver does not look again and again


def test_a_message_that_was_delivered_before_starts_alone() -> None:
    hand = Hand(batch=3)
    hand.receive([message(name, deliveries=1 + (name in "bc")) for name in "abcdef"], 0)
    assert [[job.message.id for job in hand.take(0)] for _ in range(4)] == [["a"], ["b"], ["c"], ["d", "e", "f"]]


def test_a_stop_gives_back_what_waits() -> None:
    hand = Hand()
    hand.receive([message("runs"), message("a"), message("last", deliveries=5)], 0)
    [running] = hand.take(0)
    hand.stop()
    assert (hand.want(0), hand.take(0), settle(hand, 0)) == (0, [], {})
    hand.return_waiting()
    assert settle(hand, 0) == {"releases": [unstarted("a"), unstarted("last")]}
    assert hand.take(0) == []
    finish(hand, running, 1)
    assert settle(hand, 1) == {"acks": ["runs"]}


def test_what_is_given_back_goes_last_first_as_what_is_released_later_is_ahead() -> None:
    hand = Hand()
    hand.receive(messages(MAX_SETTLED + 2), 0)
    [running] = hand.take(0)
    hand.give_back(running, "left")
    newest = settle(hand, 0)["releases"]
    assert newest == [unstarted(str(number)) for number in range(2, MAX_SETTLED + 2)]
    assert settle(hand, 0) == {"releases": [{"id": "0", "reason": "left"}, unstarted("1")]}


def test_finished_jobs_linger_only_while_more_are_to_come() -> None:
    hand = Hand()
    hand.receive(messages(3), 0)
    [job] = hand.take(0)
    finish(hand, job, 0)
    assert (settle(hand, 0), hand.next_time()) == ({}, LINGER)
    assert settle(hand, LINGER) == {"acks": ["0"]}
    for now in (1, 1):
        [job] = hand.take(now)
        finish(hand, job, now)
    assert settle(hand, 1) == {"acks": ["1", "2"]}


def test_one_request_settles_a_limited_number_of_jobs_of_one_queue() -> None:
    hand = Hand(batch=2000)
    hand.receive([*messages(MAX_SETTLED + 1, queue="a"), message("b", queue="b")], 0)
    for job in [*hand.take(0), *hand.take(0)]:
        finish(hand, job, 0)
    first, second, third = settle(hand, 0), settle(hand, 0), settle(hand, 0)
    assert (len(first["acks"]), second, third) == (MAX_SETTLED, {"acks": [str(MAX_SETTLED)]}, {"acks": ["b"]})


def test_all_leases_are_renewed_in_one_request_when_a_third_of_one_has_passed() -> None:
    hand = Hand(lease=30, batch=3)
    hand.receive(messages(3), 0)
    jobs = hand.take(0)
    hand.renew(jobs[0], is_on=False)
    assert hand.next_time() == 10
    hand.receive([message("waits")], 9.8)
    assert settle(hand, 9.9) == {}
    assert [one["id"] for one in settle(hand, 10)["extends"]] == ["1", "2", "waits"]
    hand.take(10)
    assert (settle(hand, 10), round(hand.next_time(), 6)) == ({}, 20)
    hand.renew(jobs[0], is_on=True)
    assert len(settle(hand, 10)["extends"]) == 4


def test_a_message_that_another_consumer_may_have_is_neither_started_nor_settled() -> None:
    hand = Hand(lease=1.2)
    hand.receive(messages(3), 0)
    [job] = hand.take(0)
    request = hand.settlement(0.45)
    assert request
    assert [one.message.id for one in hand.settled(request, Settled(stale=("0", "1")))] == ["0", "1"]
    finish(hand, job, 0.46)
    assert settle(hand, 0.46) == {}
    assert [one.message.id for one in hand.take(0.46)] == ["2"]


def test_what_was_not_answered_is_sent_again_until_the_lease_is_over() -> None:
    hand = Hand(lease=30)
    hand.receive(messages(2), 0)
    jobs = [*hand.take(0), *hand.take(0)]
    for job in jobs:
        finish(hand, job, 0)
    request = hand.settlement(0)
    assert request
    assert (hand.settlement(0), hand.unanswered(request, 0), hand.settlement(0)) == (None, [], None)
    again = hand.settlement(hand.next_time())
    assert again and again.items(30) == request.items(30)
    assert hand.unanswered(again, 30 + KEPT_SECONDS) == jobs
    assert (settle(hand, 40), hand.next_time()) == ({}, math.inf)


def test_a_release_that_may_have_been_done_before_is_not_reported_as_lost() -> None:
    hand = Hand()
    hand.receive(messages(1), 0)
    [job] = hand.take(0)
    hand.give_back(job)
    request = hand.settlement(0)
    assert request
    hand.unanswered(request, 0)
    again = hand.settlement(5)
    assert again and hand.settled(again, Settled(stale=("0",))) == []


def test_a_job_that_was_given_back_at_the_end_is_not_settled_twice() -> None:
    hand = Hand()
    hand.receive(messages(1), 0)
    [job] = hand.take(0)
    hand.give_back(job, "the end")
    finish(hand, job, 1)
    assert settle(hand, 1) == {"releases": [{"id": "0", "reason": "the end"}]}
    assert settle(hand, 1) == {}
