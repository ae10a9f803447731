"""The guarantees, counted over HTTP with thousands of messages on real servers, while replies are lost and processes
killed. tests/ledger/ holds the largest of these tests."""

import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from broker.connections.connection import connect
from broker.queue import ReliableQueue
from RedisQueue import RedisQueue
from tests.broker.helpers import end_leases
from tests.ledger import Api
from tests.ledger.books import Figures
from tests.ledger.run import run
from tests.servers import App, Proxy, Store, until

pytestmark = pytest.mark.slow

CLIENTS = 16


def in_parallel(operation: Callable[[Api, Any], Any], items: Any, site: App, name: str) -> list[Any]:
    """Run an operation for each item, on CLIENTS clients at once; return the answers in the order of the items."""
    apis = [Api(site.url, name) for _ in range(CLIENTS)]
    shares = [list(items)[n::CLIENTS] for n in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda api, share: [operation(api, item) for item in share], apis, shares))
    return [answers[n % CLIENTS][n // CLIENTS] for n in range(sum(map(len, shares)))]


@pytest.mark.parametrize(
    ("world", "messages", "disasters", "consumers"), [("store", 600, 21, 3), ("embedded", 300, 9, 1)]
)
def test_the_ledger_balances_after_every_kind_of_disaster(
    folder: Path, name: str, world: str, messages: int, disasters: int, consumers: int
) -> None:
    found = ledger_of(folder / name, world, messages, disasters, consumers)
    assert (found.pushed, found.lost, found.invented, found.unexpected, found.dead) == (messages, 0, 0, 0, 0)
    assert (found.received_after_ack, found.same_delivery) == (0, 0)
    assert found.doubled <= found.expired


def test_a_planned_failover_loses_only_what_was_acknowledged_during_it(folder: Path, name: str) -> None:
    found = ledger_of(folder / name, "sentinels", 800, 4, consumers=1, seed=5)  # the failovers come first
    assert found.pushed == 800
    assert found.at_risk
    assert found.balance()


def ledger_of(folder: Path, world: str, messages: int, disasters: int, consumers: int, seed: int = 1) -> Figures:
    folder.mkdir()
    found = run(folder, messages, disasters, consumers, name=world, seed=seed)
    print(found)
    return found


def test_a_thousand_idempotency_keys_pushed_several_times_are_a_thousand_messages(
    proxy: Proxy, serve: Callable[..., App], valkey: Store, name: str
) -> None:
    site, dice = serve(REDIS_URL=proxy.url), random.Random(1)
    times = {f"key-{n}": dice.randint(2, 5) for n in range(1000)}
    pushes = [key for key, number in times.items() for _ in range(number)]
    dice.shuffle(pushes)

    def push(api: Api, key: str) -> tuple[int, Any]:
        if dice.random() < 0.3:
            proxy.cut("EVALSHA", before=dice.random() < 0.3)
        return api.call("push", key, hang_up=dice.random() < 0.05, message=key)

    answers = list(zip(pushes, in_parallel(push, pushes, site, name), strict=True))
    proxy.heal()
    statuses = Counter(status for _, (status, _) in answers)
    assert statuses[503] > 300, statuses
    assert {answer["error"] for _, (status, answer) in answers if status == 503} >= {"outcome_unknown"}
    last = in_parallel(lambda api, key: (key, api.call_until_answered("push", key, message=key)), times, site, name)
    assert sorted(RedisQueue(valkey.client(), name).all()) == sorted(key.encode() for key in times)
    results = [(key, answer["count"]) for key, (status, answer) in answers + last if status == 200]
    assert len(set(results)) == 1000, "each key has one answer"
    assert statuses.keys() <= {0, 200, 503}


def test_a_thousand_late_acks_are_refused_and_remove_nothing(site: App, valkey: Store, name: str) -> None:
    api, texts = Api(site.url, name), [f"m{n}" for n in range(1000)]
    queue = RedisQueue(valkey.client(), name)
    assert api.call("push", messages=texts)[0] == 200
    old = [taken["id"] for taken in api.call("reserve", lease=60, max=1000)[1]["messages"]]
    assert (len(old), queue.count()) == (1000, 0)
    end_leases(ReliableQueue(valkey.client(), name))
    assert api.call("count")[1]["reserved"] == 0
    late = in_parallel(lambda api, id: api.call("ack", id=id), old, site, name)
    assert Counter((status, answer["error"]) for status, answer in late) == {(409, "stale"): 1000}
    assert queue.all() == [text.encode() for text in texts]

    new = [taken["id"] for taken in api.call("reserve", lease=60, max=1000)[1]["messages"]]
    late = in_parallel(lambda api, id: api.call("ack", id=id), old, site, name)
    assert Counter(status for status, _ in late) == {409: 1000}, "also while another consumer holds the messages"
    status, answer = api.call("ack", ids=[*new[:999], old[0]])
    assert (status, answer["stale"]) == (409, [old[0]])
    assert api.call("count")[1]["reserved"] == 1000, "one late id keeps the others from being acked"
    assert api.call("ack", ids=new) == (200, {"success": True, "acked": 1000})
    assert (api.call("count")[1]["reserved"], queue.count()) == (0, 0)


def test_a_hundred_failing_messages_among_thousands_become_dead_letters_after_five_deliveries(
    site: App, valkey: Store, name: str
) -> None:
    api, dice = Api(site.url, name), random.Random(1)
    texts = [f"m{n}" for n in range(5000)]
    failing = set(dice.sample(texts, 100))
    assert api.call("push", messages=texts)[1] == {"success": True, "pushed": 5000, "count": 5000}
    delivered: Counter[str] = Counter()
    numbers: dict[str, list[int]] = {text: [] for text in failing}
    for turn in range(200):
        found = api.call("reserve", lease=3600, max=100)[1]["messages"]
        delivered.update(taken["message"] for taken in found)
        good = [taken["id"] for taken in found if taken["message"] not in failing]
        bad = [taken for taken in found if taken["message"] in failing]
        for taken in bad:
            numbers[taken["message"]].append(taken["deliveries"])
        if good:
            assert api.call("ack", ids=good)[0] == 200
        if bad and turn % 2:
            assert api.call("release", ids=[taken["id"] for taken in bad])[0] == 200
        elif bad:
            end_leases(ReliableQueue(valkey.client(), name))  # as if a consumer had died
        if not found:
            break
    assert delivered == {text: 5 if text in failing else 1 for text in texts}
    assert all(each == [1, 2, 3, 4, 5] for each in numbers.values())
    counts = api.call("count")[1]
    assert (counts["count"], counts["reserved"], counts["dead"]) == (0, 0, 100)

    dead = ReliableQueue(connect(valkey.url), name + ".dead").all()
    assert {text.decode() for text in dead} == failing
    assert Api(site.url, name + ".dead").call("move", to=name)[1]["moved"] == 100
    again = api.call("reserve", lease=60, max=1000)[1]["messages"]
    assert [taken["message"].encode() for taken in again] == dead
    assert {taken["deliveries"] for taken in again} == {1}, "their deliveries start again"
    assert api.call("count")[1]["dead"] == 0


@pytest.mark.soak
def test_a_reload_does_not_wait_for_a_worker_that_is_starting(serve: Callable[..., App], valkey: Store) -> None:
    site = serve(REDIS_URL=valkey.url)
    for _ in range(4):
        until(lambda: len(site.workers()) == 2)
        os.kill(site.workers()[0], signal.SIGKILL)
        before = set(site.workers())
        until(lambda: set(site.workers()) - before)  # noqa: B023
        before |= set(site.workers())
        site.process.send_signal(signal.SIGHUP)
        until(lambda: len(site.workers()) == 2 and not before.intersection(site.workers()), 30)  # noqa: B023
