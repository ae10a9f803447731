"""A paused queue gives nothing out, and wakes those who wait when it is resumed."""

import threading

import pytest

from broker.queue import ReliableQueue
from tests.broker.helpers import counts, end_leases, on_real_servers, reserve
from tests.servers import until


def test_a_paused_queue_gives_nothing_out_and_loses_nothing(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    held = reserve(queue)[0]
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
    queue.extend(held.id, 60)
    queue.ack(held.id)
    assert (queue.state().counts.paused, queue.all(), counts(queue)) == (True, [b"b", b"c"], (2, 0, 0))
    assert queue.client.rpop(queue.key) == b"b"  # other Redis clients are not held
    queue.resume()
    queue.resume()
    assert (queue.state().counts.paused, queue.pop_batch(1, "key").messages) == (False, [b"c"])


def test_an_answer_that_was_kept_is_given_again_in_a_pause(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    assert queue.pop_batch(1, "key").messages == [b"a"]
    queue.pause()
    assert queue.pop_batch(1, "key").messages == [b"a"]


def test_leases_end_in_a_pause_and_say_when(queue: ReliableQueue) -> None:
    queue.push(b"a")
    reserve(queue)
    queue.pause()
    due = queue.pop_batch(5).next_due
    assert due is not None and 0 < due <= 30
    end_leases(queue)
    queue.sweep()
    assert queue.all() == [b"a"]


@on_real_servers
@pytest.mark.parametrize("number", [0, 2])
def test_those_who_wait_wake_at_a_resume(queue: ReliableQueue, number: int) -> None:
    queue.push(*[b"a"] * number)
    queue.pause()
    started = int(queue.client.info("commandstats").get("cmdstat_blmove", {"calls": 0})["calls"])
    threads = [threading.Thread(target=queue.wait, args=(60,), kwargs={"paused": True}) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: queue.client.info("clients")["blocked_clients"] == 3)
    queue.push(b"b")  # nobody wakes for it
    assert queue.client.info("clients")["blocked_clients"] == 3
    queue.resume()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert int(queue.client.info("commandstats")["cmdstat_blmove"]["calls"]) - started <= 6
    assert queue.pop(9) == [b"a"] * number + [b"b"]
