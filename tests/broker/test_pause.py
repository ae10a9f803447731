"""A paused queue delivers nothing, and wakes up the waiting clients when it is resumed."""

import threading

import pytest

from broker.queue import ReliableQueue
from tests.broker.helpers import counts, end_leases, reserve
from tests.servers import until


def test_a_paused_queue_delivers_nothing_and_loses_nothing(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    reserved = reserve(queue)[0]
    queue.pause()
    queue.pause()
    for batch in (
        queue.pop_batch(),
        queue.pop_batch(5),
        queue.pop_batch(1, "key"),
        queue.reserve(),
        queue.reserve(9, 9),
    ):
        assert (batch.messages, batch.paused) == ([], True)
    queue.push(b"c")
    queue.extend(reserved.id, 60)
    queue.ack(reserved.id)
    assert (queue.state().counts.paused, queue.all(), counts(queue)) == (True, [b"b", b"c"], (2, 0, 0))
    assert queue.client.rpop(queue.key) == b"b"  # other Redis clients can still pop
    queue.resume()
    queue.resume()
    assert (queue.state().counts.paused, queue.pop_batch(1, "key").messages) == (False, [b"c"])


def test_a_saved_answer_is_given_again_during_a_pause(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    assert queue.pop_batch(1, "key").messages == [b"a"]
    queue.pause()
    assert queue.pop_batch(1, "key").messages == [b"a"]


def test_leases_end_during_a_pause(queue: ReliableQueue) -> None:
    queue.push(b"a")
    reserve(queue)
    queue.pause()
    due = queue.pop_batch(5).next_due
    assert due is not None and 0 < due <= 30
    end_leases(queue)
    queue.sweep()
    assert queue.all() == [b"a"]


@pytest.mark.parametrize("number", [0, 2])
def test_a_resume_wakes_up_the_clients_that_wait_for_it(queue: ReliableQueue, number: int) -> None:
    queue.push(*[b"a"] * number)
    queue.pause()
    started = int(queue.client.info("commandstats").get("cmdstat_blmove", {"calls": 0})["calls"])
    threads = [threading.Thread(target=queue.wait, args=(60,), kwargs={"paused": True}) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: queue.client.info("clients")["blocked_clients"] == 3)
    queue.push(b"b")  # wakes up none of them
    assert queue.client.info("clients")["blocked_clients"] == 3
    queue.resume()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert int(queue.client.info("commandstats")["cmdstat_blmove"]["calls"]) - started <= 6
    assert queue.pop(9) == [b"a"] * number + [b"b"]


def test_a_resume_replaces_a_key_of_another_type(queue: ReliableQueue) -> None:
    queue.pause()
    queue.client.set(queue.key_prefix + "resumed", "text")
    queue.resume()
    assert not queue.state().counts.paused
    assert queue.client.lrange(queue.key_prefix + "resumed", 0, -1) == [b"1"]
