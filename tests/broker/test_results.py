"""The result of a job: stored together with its ack, or by itself."""

import pytest
import redis

from broker.models import LeaseExpired
from broker.queue import ReliableQueue
from tests.broker.helpers import counts, end_leases, reserve


def test_a_result_can_be_read_again_and_again(queue: ReliableQueue) -> None:
    assert queue.result("job") is None
    queue.store_result("job", b"\x00\xff", 100)
    first, again = queue.result("job"), queue.result("job")
    assert first and first == again and first.result == b"\x00\xff"
    queue.store_result("job", b"second")
    found = queue.result("job")
    assert found and (found.result, found.at >= first.at) == (b"second", True)
    assert (queue.result("JOB"), counts(queue)) == (None, (0, 0, 0))
    assert 86_000 < queue.client.ttl(queue.result_key("job")) <= 86_400


def test_an_ack_stores_the_result_in_the_same_step(queue: ReliableQueue) -> None:
    queue.push(b"a")
    [one] = reserve(queue)
    queue.ack_with(one.id, "job", b"done")
    queue.ack_with(one.id, "job", b"done")  # as after a lost reply
    found = queue.result("job")
    assert found and (found.result, counts(queue)) == (b"done", (0, 0, 0))


def test_a_late_ack_stores_nothing(queue: ReliableQueue) -> None:
    queue.push(b"a")
    [late] = reserve(queue)
    end_leases(queue)
    [other] = reserve(queue)
    with pytest.raises(LeaseExpired):
        queue.ack_with(late.id, "job", b"late")
    assert queue.result("job") is None
    queue.ack_with(other.id, "job", b"right")
    with pytest.raises(LeaseExpired):
        queue.ack_with(late.id, "job", b"late")
    found = queue.result("job")
    assert found and found.result == b"right"


def test_a_full_server_stores_no_result_and_acks_nothing(queue: ReliableQueue) -> None:
    queue.push(b"a")
    [one] = reserve(queue)
    queue.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.OutOfMemoryError):
            queue.ack_with(one.id, "job", b"x")
        with pytest.raises(redis.OutOfMemoryError):
            queue.store_result("job", b"x")
    finally:
        queue.client.config_set("maxmemory", 0)
    assert (queue.result("job"), counts(queue)) == (None, (0, 1, 0))
