"""The keys in Redis: their map, their lifetimes, their Cluster slot, and that scripts declare them."""

import re
from typing import Any

import pytest
import redis

import broker.keys
from broker.keys import queue_keys
from broker.queue import ReliableQueue
from tests.broker.helpers import numbered, reserve, use_every_operation
from tests.engines import Cluster
from tests.servers import Store
from web.errors import from_redis


def test_the_keys_of_a_queue_have_the_list_as_their_hash_tag() -> None:
    assert queue_keys("jobs") == ("queue:jobs", "{queue:jobs}:")
    assert queue_keys("jobs", "") == ("jobs", "{jobs}:")
    assert queue_keys("jobs.dead") == ("{queue:jobs}:dead", "{queue:jobs}:dead:")
    assert queue_keys("jobs.dead.dead") == ("{queue:jobs}:dead:dead", "{queue:jobs}:dead:dead:")
    assert queue_keys(".dead") == ("queue:.dead", "{queue:.dead}:")
    assert queue_keys("dead") == ("queue:dead", "{queue:dead}:")


def documented() -> dict[str, str]:
    """Return the map in broker/keys.py: a pattern of each key, and its type."""
    rows = re.findall(
        r"^ +(\{queue:jobs\}:\S+[a-z>]|queue:jobs) +(list|zset|hash|string) ", str(broker.keys.__doc__), re.MULTILINE
    )
    assert len(rows) == 19, rows
    return {re.sub("<[a-z]+>", "[0-9a-f]+", re.escape(key)): kind for key, kind in rows}


# Seconds after which a key expires; the others stay as long as they hold something.
LIFETIMES = {"acked": 3601, "waiters": 60, "redeliveries": 3600, "answers": 30 * 3600, "cleared": 3600}
LIFETIMES |= {"counters": 24 * 3600, "resumed": 60, "result": 24 * 3600, "moved": 3600}


def test_every_key_is_on_the_map_and_lives_as_long_as_it_says(queue: ReliableQueue, backend: Any) -> None:
    use_every_operation(queue)
    patterns, seen = documented(), set()
    for key in backend.scan_iter(match=f"*{queue.name}[^0-9]*", count=10_000):
        text = key.decode().replace(queue.name, "jobs").replace("}:dead:", "}:")
        found = [pattern for pattern in patterns if re.fullmatch(pattern, text)]
        assert found, f"{text} is not on the map"
        pattern = found[0]
        seen.add(pattern)
        assert backend.type(key).decode() == patterns[pattern], text
        kind = text.partition("}:")[2].partition(":")[0]
        if kind == "clock":
            assert 0 < backend.ttl(key) <= 1001, text  # as long as the longest lease or delay
        elif kind == "rate":
            assert 0 < backend.ttl(key) <= 1000, text  # until a thousandth of a message a second is allowed again
        elif kind == "failure_reasons" and b"}:dead:" not in key:
            assert 6 * 86_400 < backend.ttl(key) <= 7 * 86_400, text
        elif kind in LIFETIMES:
            assert LIFETIMES[kind] - 60 < backend.ttl(key) <= LIFETIMES[kind], text
        else:
            assert backend.ttl(key) == -1, text
    assert backend.exists(queue.key)
    assert seen | {re.escape("queue:jobs")} == set(patterns)


def test_an_emptied_queue_leaves_only_keys_that_expire(queue: ReliableQueue, backend: Any) -> None:
    queue.push(*numbered(9))
    queue.release(reserve(queue)[0].id)
    queue.ack(*(delivery.id for delivery in reserve(queue, 9)))
    assert [key for key in backend.scan_iter(match=f"*{queue.name}*", count=10_000) if backend.ttl(key) < 0] == []


def slot(key: str) -> int:
    """Return the Cluster slot of a key: CRC16 of what is in its first braces."""
    tag = re.search(r"\{([^}]+)\}", key)
    crc = 0
    for byte in (tag[1] if tag else key).encode():
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ (0x1021 if crc & 0x8000 else 0)
    return (crc & 0xFFFF) % 16384


@pytest.mark.parametrize("name", ["jobs", "a.dead", "a:b", ".dead", "jobs.dead.dead", "A-Z_0.9"])
@pytest.mark.parametrize("prefix", ["queue:", "", "q"])
def test_all_keys_of_a_queue_share_a_cluster_slot(valkey: Store, name: str, prefix: str) -> None:
    queue = ReliableQueue(None, name, prefix)
    keys = [*queue._keys, *queue._answer_keys, queue._cleared_key("undo"), queue_keys(name + ".dead", prefix)[0]]
    assert len({slot(key) for key in keys}) == 1
    assert {valkey.client().cluster("KEYSLOT", key) for key in keys} == {slot(queue.key)}


def test_a_move_to_another_slot_moves_nothing_and_is_cross_slot(cluster: Cluster, name: str) -> None:
    queue, to = ReliableQueue(cluster.client(), name), ReliableQueue(cluster.client(), name + "x")
    queue.push(b"a")
    with pytest.raises(redis.RedisError) as caught:
        queue.move(to.name, 1)
    error = from_redis(caught.value)
    assert (error.status, error.error) == (409, "cross_slot")
    assert (queue.all(), to.all()) == ([b"a"], [])
    assert queue.move(name + ".dead", 1) == 1


@pytest.mark.parametrize("server", ["valkey", "redis7"])
def test_scripts_touch_no_key_that_they_do_not_declare(server: str, request: pytest.FixtureRequest, name: str) -> None:
    store: Store = request.getfixturevalue(server)
    client = store.client()
    calls: list[str] = []
    with client.monitor() as monitor:
        use_every_operation(ReliableQueue(client, name))
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
            if words[1].upper() == "PUBLISH":  # a channel has no slot
                assert words[2] in (f"{{queue:{name}}}:notices", f"{{queue:{name}}}:dead:notices"), call
                continue
            assert words[2] in allowed, call
            if words[1].upper() in ("RENAME", "LMOVE"):
                assert words[3] in allowed, call
    assert checked > 100
