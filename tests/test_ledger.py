"""What the guarantees promise, counted over HTTP with real servers, while replies are lost and processes killed."""

import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from broker.connection import connect
from RedisQueue import RedisQueue
from tests import ledger
from tests.ledger import Api
from tests.servers import App, Proxy, Store, until

CLIENTS = 16


def at_once(act: Callable[[Api, Any], Any], each: Any, site: App, name: str) -> list[Any]:
    """Do something for each of many things with a few clients, and return the answers in order."""
    apis = [Api(site.url, name) for _ in range(CLIENTS)]
    shares = [list(each)[n::CLIENTS] for n in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda api, share: [act(api, one) for one in share], apis, shares))
    return [answers[n % CLIENTS][n // CLIENTS] for n in range(sum(map(len, shares)))]


def end_all_leases(store: Store, name: str) -> None:
    """Let every lease end now, as if that much time had passed."""
    client, key = store.client(), RedisQueue(None, name).meta + "reserved"
    for id in client.zrange(key, 0, -1):
        client.zadd(key, {id: 1})


def test_a_ledger_of_everything_that_can_go_wrong_balances(folder: Path) -> None:
    (folder / "ledger").mkdir()
    found = ledger.run(folder / "ledger", messages=1500, events=30)
    print(found)
    assert (found.pushed, found.lost, found.unexpected, found.odd, found.dead) == (1500, 0, 0, 0, 0)
    assert (found.acked_then_seen, found.same_delivery) == (0, 0)
    assert found.doubled <= found.expired


def test_a_thousand_keys_pushed_again_and_again_are_a_thousand_messages(
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

    answers = list(zip(pushes, at_once(push, pushes, site, name), strict=True))
    proxy.heal()
    statuses = Counter(status for _, (status, _) in answers)
    assert statuses[503] > 300, statuses
    assert {answer["error"] for _, (status, answer) in answers if status == 503} >= {"unknown"}
    sure = at_once(lambda api, key: (key, api.surely("push", key, message=key)), times, site, name)
    assert sorted(RedisQueue(valkey.client(), name).all()) == sorted(key.encode() for key in times)
    told = [(key, answer["count"]) for key, (status, answer) in answers + sure if status == 200]
    assert len(set(told)) == 1000, "each key has one answer"
    assert statuses.keys() <= {0, 200, 503}


def test_a_thousand_late_acks_are_refused_and_remove_nothing(site: App, valkey: Store, name: str) -> None:
    api, texts = Api(site.url, name), [f"m{n}" for n in range(1000)]
    queue = RedisQueue(valkey.client(), name)
    assert api.call("push", messages=texts)[0] == 200
    old = [taken["id"] for taken in api.call("reserve", lease=1, max=1000)[1]["messages"]]
    assert (len(old), queue.count()) == (1000, 0)
    until(lambda: api.call("count")[1]["reserved"] == 0)  # the leases run out by themselves
    late = at_once(lambda api, id: api.call("ack", id=id), old, site, name)
    assert Counter((status, answer["error"]) for status, answer in late) == {(409, "stale"): 1000}
    assert queue.all() == [text.encode() for text in texts]

    new = [taken["id"] for taken in api.call("reserve", lease=60, max=1000)[1]["messages"]]
    late = at_once(lambda api, id: api.call("ack", id=id), old, site, name)
    assert Counter(status for status, _ in late) == {409: 1000}, "also while another consumer has them"
    status, answer = api.call("ack", ids=[*new[:999], old[0]])
    assert (status, answer["stale"]) == (409, [old[0]])
    assert api.call("count")[1]["reserved"] == 1000, "one that is late keeps the others from being acked"
    assert api.call("ack", ids=new) == (200, {"success": True, "acked": 1000})
    assert (api.call("count")[1]["reserved"], queue.count()) == (0, 0)


def test_a_hundred_poisoned_among_thousands_die_after_five_deliveries_and_can_be_moved_back(
    site: App, valkey: Store, name: str
) -> None:
    api, dice = Api(site.url, name), random.Random(1)
    texts = [f"m{n}" for n in range(5000)]
    poison = set(dice.sample(texts, 100))
    assert api.call("push", messages=texts)[1] == {"success": True, "pushed": 5000, "count": 5000}
    delivered: Counter[str] = Counter()
    numbers: dict[str, list[int]] = {text: [] for text in poison}
    for turn in range(200):
        found = api.call("reserve", lease=3600, max=100)[1]["messages"]
        delivered.update(taken["message"] for taken in found)
        good = [taken["id"] for taken in found if taken["message"] not in poison]
        bad = [taken for taken in found if taken["message"] in poison]
        for taken in bad:
            numbers[taken["message"]].append(taken["deliveries"])
        if good:
            assert api.call("ack", ids=good)[0] == 200
        if bad and turn % 2:
            assert api.call("release", ids=[taken["id"] for taken in bad])[0] == 200
        elif bad:
            end_all_leases(valkey, name)  # as a consumer that died
        if not found:
            break
    assert delivered == {text: 5 if text in poison else 1 for text in texts}
    assert all(each == [1, 2, 3, 4, 5] for each in numbers.values())
    counts = api.call("count")[1]
    assert (counts["count"], counts["reserved"], counts["dead"]) == (0, 0, 100)

    dead = RedisQueue(connect(valkey.url), name + ".dead").all()
    assert {text.decode() for text in dead} == poison
    assert Api(site.url, name + ".dead").call("move", to=name) == (200, {"success": True, "moved": 100})
    again = api.call("reserve", lease=60, max=1000)[1]["messages"]
    assert [taken["message"].encode() for taken in again] == dead
    assert {taken["deliveries"] for taken in again} == {1}, "they start anew"
    assert api.call("count")[1]["dead"] == 0


def test_a_reload_is_not_held_up_by_a_worker_that_just_starts(serve: Callable[..., App], valkey: Store) -> None:
    site = serve(REDIS_URL=valkey.url)
    for _ in range(4):
        until(lambda: len(site.workers()) == 2)
        os.kill(site.workers()[0], signal.SIGKILL)
        before = set(site.workers())
        until(lambda: set(site.workers()) - before)  # noqa: B023
        before |= set(site.workers())
        site.process.send_signal(signal.SIGHUP)
        until(lambda: len(site.workers()) == 2 and not before.intersection(site.workers()), 30)  # noqa: B023
