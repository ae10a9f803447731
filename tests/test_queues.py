"""The list of all queues: what is one, what is none, and that looking never takes long."""

import json
import urllib.request
from typing import Any

import pytest

from app import app
from broker import listing as queues
from broker.listing import queues as all_queues
from broker.reliable import ReliableQueue
from tests.servers import App, FakeRedis, Store


@pytest.fixture(autouse=True)
def forget() -> None:
    queues._kept.clear()


def found(client: Any, match: str = "*", prefix: str = "queue:") -> dict[str, dict[str, int]]:
    queues._kept.clear()
    answer = all_queues(client, prefix, match, 5)
    assert answer["complete"] is True
    return {each.pop("name"): each for each in answer["queues"]}


def named(client: Any, name: str, prefix: str = "queue:") -> ReliableQueue:
    return ReliableQueue(client, name, prefix, 1)


def test_each_queue_that_holds_something_is_listed_with_its_counts(backend: Any, name: str) -> None:
    named(backend, f"{name}.waits").push(b"a", b"b")
    reserving = named(backend, f"{name}.reserves")
    reserving.push(b"a")
    reserving.reserve(100)
    burying = named(backend, f"{name}.buries")
    burying.push(b"a")
    burying.release(burying.reserve().messages[0].id)
    named(backend, f"{name}.was").push(b"a")
    named(backend, f"{name}.was").pop()
    waited = named(backend, f"{name}.waited")
    waited.announce("process", 1, 30)
    assert found(backend, f"{name}*") == {
        f"{name}.waits": {"count": 2, "reserved": 0, "dead": 0},
        f"{name}.reserves": {"count": 0, "reserved": 1, "dead": 0},
        f"{name}.buries": {"count": 0, "reserved": 0, "dead": 1},
    }


def test_leases_that_ended_are_counted_as_waiting(backend: Any, name: str) -> None:
    queue = ReliableQueue(backend, name)
    queue.push(b"a")
    [delivery] = queue.reserve().messages
    backend.zadd(queue.meta + "reserved", {delivery.id: 1})
    assert all_queues(backend, "queue:", name, 5)["queues"] == [{"name": name, "count": 1, "reserved": 0, "dead": 0}]


def test_what_is_no_queue_is_passed_over(backend: Any, name: str) -> None:
    backend.set(f"queue:{name}.text", "x")
    backend.set(f"queue:{name} no name", "x")
    backend.lpush(f"queue:{name} no name either", "x")
    backend.lpush(f"elsewhere:queue:{name}.other", "x")
    backend.lpush(f"{{queue:{name}.cleared}}:cleared:undo", "x")
    backend.lpush(f"queue:{name}.\xff".encode("latin-1"), "x")
    backend.lpush(f"queue:{name}.list", "x")
    assert set(found(backend, f"{name}*")) == {f"{name}.list"}


def test_a_broken_queue_does_not_hide_the_others(backend: Any, name: str) -> None:
    broken = named(backend, f"{name}.broken")
    broken.push(b"a", b"b")
    broken.reserve(100)
    backend.set(broken.meta + "attempts", "not what belongs here")
    named(backend, f"{name}.whole").push(b"a")
    assert found(backend, f"{name}*") == {
        f"{name}.broken": {"count": 1, "reserved": 1, "dead": 0},
        f"{name}.whole": {"count": 1, "reserved": 0, "dead": 0},
    }


@pytest.mark.parametrize(
    ("match", "names"),
    [("*", "abc"), ("a", "a"), ("[ab]", "ab"), ("?", "abc"), ("", "abc"), ("d", ""), ("[", ""), ("*a*" * 30, "")],
)
def test_a_pattern_picks_some(match: str, names: str) -> None:
    client = FakeRedis()
    client.flushall()
    for each in "abc":
        named(client, each).push(b"x")
    assert set(found(client, match or "*")) == set(names)


@pytest.mark.parametrize("prefix", ["", "q", "a*b?[c]:", "queue:"])
def test_any_prefix_is_taken_literally(prefix: str) -> None:
    client = FakeRedis()
    client.flushall()
    named(client, "jobs", prefix).push(b"x")
    reserving = named(client, "held", prefix)
    reserving.push(b"x")
    reserving.reserve(100)
    client.lpush("axb1c:foreign", "x")
    assert {"jobs", "held"} <= set(found(client, "*", prefix))
    if prefix:
        assert set(found(client, "*", prefix)) == {"jobs", "held"}


def test_dead_letters_are_shown_with_their_queue(backend: Any, name: str) -> None:
    named(backend, f"{name}.dead").push(b"a")
    assert found(backend, f"{name}*") == {name: {"count": 0, "reserved": 0, "dead": 1}}


def test_an_answer_is_kept_for_a_second(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    client = FakeRedis()
    assert all_queues(client, "queue:", name, 5)["queues"] == []
    named(client, name).push(b"a")
    assert all_queues(client, "queue:", name, 5)["queues"] == []
    monkeypatch.setattr(queues, "KEPT", 0.0)
    assert len(all_queues(client, "queue:", name, 5)["queues"]) == 1
    assert len(queues._kept) == 1  # what is older is forgotten


def test_a_foreign_keyspace_is_walked_in_steps_and_not_to_the_end(
    valkey: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    client = valkey.client()
    client.mset({f"foreign:{name}:{number}": "x" for number in range(20_000)})
    named(client, name).push(b"a")
    client.config_resetstat()
    assert set(found(client, name)) == {name}
    stats = client.info("commandstats")
    assert stats["cmdstat_scan"]["calls"] >= 20
    assert "cmdstat_keys" not in stats
    queues._kept.clear()
    monkeypatch.setattr(queues, "LONGEST", 0.0)
    client.config_resetstat()
    assert all_queues(client, "queue:", name, 5)["complete"] is False
    assert client.info("commandstats")["cmdstat_scan"]["calls"] == 1


def test_the_route_answers_and_refuses(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    client = FakeRedis()
    monkeypatch.setitem(app.config, "CLIENT", client)
    named(client, name).push(b"a")
    expected = [{"name": name, "count": 1, "reserved": 0, "dead": 0}]
    http = app.test_client()
    assert http.get("/api/queues", query_string={"match": name}).json == {
        "success": True,
        "queues": expected,
        "complete": True,
    }
    assert http.get("/api/queues", query_string={"match": "x" * 129}).status_code == 400
    assert http.get("/api/queues?match=a&match=b").status_code == 400
    assert http.get("/api/queues?match=%FF%00[!").status_code == 200


def test_the_route_answers_over_gunicorn(site: App, valkey: Store, name: str) -> None:
    named(valkey.client(), name).push(b"a")
    answer = json.load(urllib.request.urlopen(f"{site.url}/api/queues?match={name}"))
    assert answer["queues"] == [{"name": name, "count": 1, "reserved": 0, "dead": 0}]


def test_dead_letters_that_are_reserved_are_still_held_by_a_queue_of_theirs(backend: Any, name: str) -> None:
    queue, dead = named(backend, name), named(backend, f"{name}.dead")
    queue.push(b"a")
    queue.release(queue.reserve().messages[0].id)
    assert found(backend, f"{name}*") == {name: {"count": 0, "reserved": 0, "dead": 1}}
    dead.reserve(100)
    assert found(backend, f"{name}*") == {f"{name}.dead": {"count": 0, "reserved": 1, "dead": 0}}
