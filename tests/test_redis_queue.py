"""RedisQueue: the list operations, the same on fakeredis, Valkey and Redis, and when connections fail."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from broker.connections.connection import connect
from broker.connections.errors import NotSent
from RedisQueue import RedisQueue
from tests.servers import Proxy, Store, free_port

EVERY_BYTE = bytes(range(256))


@pytest.fixture
def queue(backend: Any, name: str) -> RedisQueue:
    return RedisQueue(backend, name)


def test_a_new_queue_is_empty(queue: RedisQueue) -> None:
    assert (queue.count(), queue.pop(), queue.pop(10), queue.all()) == (0, [], [], [])


def test_first_in_is_first_out(queue: RedisQueue) -> None:
    assert [queue.push(text) for text in (b"a", b"b", b"c")] == [1, 2, 3]
    assert [queue.pop() for _ in range(4)] == [[b"a"], [b"b"], [b"c"], []]


def test_a_push_of_many_keeps_their_order_and_returns_the_length(queue: RedisQueue) -> None:
    queue.push(b"a")
    assert queue.push(b"b", b"c") == 3
    assert queue.all() == [b"a", b"b", b"c"]


def test_a_push_of_no_messages_changes_nothing(queue: RedisQueue) -> None:
    queue.push(b"a")
    assert (queue.push(), queue.push(front=True), queue.all()) == (1, 1, [b"a"])


def test_a_message_pushed_to_the_front_is_popped_next(queue: RedisQueue) -> None:
    queue.push(b"a", b"b")
    assert queue.push(b"x", front=True) == 3
    assert queue.all() == [b"x", b"a", b"b"]


def test_many_messages_pushed_to_the_front_keep_their_order(queue: RedisQueue) -> None:
    queue.push(b"c")
    queue.push(b"a", b"b", front=True)
    assert queue.all() == [b"a", b"b", b"c"]


def test_popped_messages_can_be_put_back_where_they_were(queue: RedisQueue) -> None:
    queue.push(b"a", b"b", b"c")
    queue.push(*queue.pop(2), front=True)
    assert queue.all() == [b"a", b"b", b"c"]


def test_pop_takes_up_to_max_messages(queue: RedisQueue) -> None:
    queue.push(b"a", b"b", b"c")
    assert (queue.pop(2), queue.pop(2), queue.pop(2)) == ([b"a", b"b"], [b"c"], [])


def test_an_emptied_queue_leaves_no_key(queue: RedisQueue) -> None:
    queue.push(b"a")
    queue.pop()
    assert not queue.client.exists(queue.key)


def test_every_byte_comes_out_as_it_went_in(queue: RedisQueue) -> None:
    each = [bytes([number]) for number in range(256)]
    queue.push(*each)
    assert (queue.all(), queue.pop(256)) == (each, each)


@pytest.mark.parametrize(
    "message",
    [EVERY_BYTE, EVERY_BYTE * 4096, b"\r\n", b"*1\r\n$4\r\nPING\r\n", "žluťoučký 🐎".encode(), b"\xff\xfe", b" ", b"0"],
    ids=["every byte", "a MiB", "newline", "RESP", "unicode", "not UTF-8", "space", "zero"],
)
def test_bytes_in_are_bytes_out(queue: RedisQueue, message: bytes) -> None:
    queue.push(message, b"-")
    queue.push(message, front=True)
    assert queue.all() == [message, message, b"-"]
    assert queue.pop(2) == [message, message]


def test_all_returns_any_window_in_pop_order_and_takes_nothing(queue: RedisQueue) -> None:
    messages = [b"%d" % n for n in range(7)]
    queue.push(*messages)
    for offset in range(9):
        assert queue.all(offset) == messages[offset:]
        for limit in range(9):
            assert queue.all(offset, limit) == messages[offset : offset + limit], (offset, limit)
    assert queue.count() == 7


def test_other_redis_clients_see_and_feed_the_same_list(queue: RedisQueue, backend: Any) -> None:
    backend.lpush(f"queue:{queue.name}", "from another client")
    queue.push(b"mine")
    assert backend.lrange(f"queue:{queue.name}", 0, -1) == [b"mine", b"from another client"]
    assert queue.pop() == [b"from another client"]


def test_queues_do_not_touch_each_other(backend: Any, name: str) -> None:
    one, other, elsewhere = RedisQueue(backend, name), RedisQueue(backend, name + "x"), RedisQueue(backend, name, "p:")
    one.push(b"1")
    other.push(b"2")
    assert (one.all(), other.all(), elsewhere.all()) == ([b"1"], [b"2"], [])


def test_a_key_that_is_not_a_list_is_an_error_and_stays_as_it_is(queue: RedisQueue, backend: Any) -> None:
    backend.set(queue.key, "text")
    for operation in (
        lambda: queue.push(b"a"),
        lambda: queue.push(b"a", front=True),
        queue.pop,
        queue.count,
        queue.all,
    ):
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            operation()
    assert backend.get(queue.key) == b"text"


@pytest.mark.parametrize("server", ["valkey", "redis7"])
def test_each_verb_is_one_command(server: str, request: pytest.FixtureRequest, name: str) -> None:
    store: Store = request.getfixturevalue(server)
    queue, client = RedisQueue(store.client(), name), store.client()
    client.config_resetstat()
    queue.push(*[b"m"] * 1000)
    queue.push(*[b"m"] * 1000, front=True)
    queue.pop(1000)
    queue.pop()
    queue.all(10, 10)
    queue.count()
    stats = client.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}
    operations = {operation: calls.get(operation) for operation in ("lpush", "rpush", "rpop", "lrange", "llen")}
    assert operations == {"lpush": 1, "rpush": 1, "rpop": 2, "lrange": 1, "llen": 1}


def test_a_push_whose_reply_is_lost_is_in_the_list_once(proxy: Proxy, valkey: Store, name: str) -> None:
    queue, truth = RedisQueue(connect(proxy.url), name), RedisQueue(valkey.client(), name)
    for text in (b"a", b"b", b"c"):
        proxy.cut("LPUSH")
        with pytest.raises(redis.ConnectionError) as caught:
            queue.push(text)
        assert not isinstance(caught.value, NotSent)
    assert truth.all() == [b"a", b"b", b"c"]


def test_no_command_is_sent_twice_when_every_reply_is_lost(proxy: Proxy, valkey: Store, name: str) -> None:
    queue, truth = RedisQueue(connect(proxy.url), name), RedisQueue(valkey.client(), name)
    truth.push(b"a", b"b", b"c")
    proxy.cut(times=1000)
    for operation in (
        lambda: queue.push(b"d"),
        lambda: queue.push(b"-", front=True),
        queue.pop,
        queue.count,
        queue.all,
    ):
        with pytest.raises(redis.ConnectionError):
            operation()
    assert proxy.commands == ["LPUSH", "RPUSH", "RPOP", "LLEN", "LRANGE"]
    assert truth.all() == [b"a", b"b", b"c", b"d"]


def test_a_connection_that_broke_between_commands_is_made_again(proxy: Proxy, name: str) -> None:
    queue = RedisQueue(connect(proxy.url), name)
    queue.push(b"a")
    proxy.drop()
    assert queue.push(b"b") == 2
    assert queue.pop(9) == [b"a", b"b"]


def test_a_failed_connect_raises_not_sent(proxy: Proxy, valkey: Store, name: str) -> None:
    queue = RedisQueue(connect(proxy.url), name)
    queue.push(b"a")
    proxy.refuse()
    with pytest.raises(NotSent):
        queue.push(b"b")
    with pytest.raises(NotSent):
        RedisQueue(connect(f"redis://127.0.0.1:{free_port()}"), name).pop()
    with pytest.raises(NotSent):
        RedisQueue(connect("unix:///nowhere/at/all.sock"), name).pop()
    assert RedisQueue(valkey.client(), name).all() == [b"a"]
    proxy.accept()
    assert queue.pop(9) == [b"a"]


def test_more_concurrent_pushes_than_connections_are_all_done(valkey: Store, name: str) -> None:
    queue = RedisQueue(valkey.client(), name)
    with ThreadPoolExecutor(50) as pool:
        list(pool.map(lambda n: queue.push(b"%d" % n), range(500)))
    assert sorted(queue.all(), key=int) == [b"%d" % n for n in range(500)]
