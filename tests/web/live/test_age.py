"""The age of the next message, counted back in the history: when it is exact, a lower bound, or unknown."""

import json
import random
import urllib.request
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from broker import listing
from broker.models import NextMessage, QueueCounts, State
from tests.conftest import Api
from tests.servers import App, Store, until
from tests.web.helpers import push
from tests.web.live.fakes import START, Clock
from web.live.age import Age, age_of, find_age, record_state
from web.live.history import MAX_SILENT_STEPS, MAX_STEPS, STEP_SECONDS, History


@dataclass
class Message:
    came: float
    deliveries: int = 0
    in_front_since: float | None = None


class Simulation:
    """A queue that knows when each message came, and the history that an instance records of it."""

    def __init__(self, file: Path | None = None) -> None:
        self.clock = Clock()
        self.history = History(file, self.clock)
        self.waiting: list[Message] = []  # in pop order
        self.taken = 0

    @property
    def now(self) -> float:
        return self.clock.now

    def wait(self, steps: float = 1) -> None:
        self.clock.pass_steps(steps)

    def raw_push(self, number: int = 1) -> None:
        self.waiting += [Message(self.now) for _ in range(number)]

    def push(self, number: int = 1) -> None:
        self.raw_push(number)
        self._answer("push", {"success": True, "pushed": number, "count": len(self.waiting)})

    def push_front(self) -> None:
        self.waiting.insert(0, Message(self.now, 0, self.now))

    def raw_pop(self, number: int = 1) -> None:
        del self.waiting[:number]

    def pop(self) -> None:
        self.raw_pop()
        self._answer("pop", {"success": True, "message": "a"})

    def reserve(self) -> Message:
        message = self.waiting.pop(0)
        message.deliveries, message.in_front_since = message.deliveries + 1, None
        self._answer("reserve", {"success": True, "message": "a", "deliveries": message.deliveries})
        return message

    def give_back(self, message: Message) -> None:
        message.in_front_since = self.now
        self.waiting.insert(0, message)

    def _answer(self, operation: str, answer: dict[str, object]) -> None:
        self.history.add_answer(operation, "jobs", answer)

    def age(self) -> Age | None:
        """Return the age that `count` answers."""
        next_message = None
        if self.waiting:
            first, since = self.waiting[0], self.waiting[0].in_front_since
            in_front = sum(one.in_front_since is not None for one in self.waiting)
            returned = None if since is None else self.now - since
            next_message = NextMessage(b"%d" % id(first), returned, first.deliveries, in_front)
        counts = QueueCounts(len(self.waiting))
        return age_of(record_state(self.history, "jobs", State(counts, [], None, next_message)), self.history)

    def check(self, steps: int = 1) -> Age | None:
        """Check that the age claims nothing that is not so, and return it. It may be too low by some steps."""
        age = self.age()
        if age:
            real = self.now - self.waiting[0].came
            assert age["seconds"] <= real
            assert age["at_least"] or real < age["seconds"] + steps * STEP_SECONDS + 1
        return age


def exactly(seconds: float) -> Age:
    return {"seconds": int(seconds), "at_least": False}


def at_least(seconds: float) -> Age:
    return {"seconds": int(seconds), "at_least": True}


@pytest.fixture
def queue() -> Simulation:
    return Simulation()


def test_the_age_of_a_message_pushed_through_the_instance_is_exact_to_a_step(queue: Simulation) -> None:
    queue.push(3)
    assert queue.check() == exactly(0)
    queue.wait(3)
    queue.push(2)
    assert queue.check() == exactly(20)  # it came at the latest when its step ended
    for _ in range(3):
        queue.pop()
    assert queue.check() == exactly(0)
    queue.wait(5)
    assert queue.check() == exactly(40)


def test_an_empty_queue_has_no_age(queue: Simulation) -> None:
    assert queue.age() is None
    queue.push()
    queue.pop()
    assert queue.age() is None


def test_what_waited_before_the_first_reading_has_waited_at_least_since_then(queue: Simulation) -> None:
    queue.raw_push(5)
    queue.wait(9)
    assert queue.check() is None
    queue.wait(4)
    queue.push(2)
    assert queue.check() == at_least(40)
    assert find_age(queue.history, "other", 3) is None


def test_a_queue_that_nobody_looked_at_for_long_keeps_its_age(queue: Simulation) -> None:
    queue.push(3)
    queue.wait(10 * MAX_SILENT_STEPS)
    assert queue.check() == exactly(10 * (10 * MAX_SILENT_STEPS - 1))
    queue.wait(MAX_STEPS - 1)
    queue.push()
    assert queue.check() == at_least(1790)  # all that is left of the history is the reading before
    queue.wait()
    assert queue.check() == at_least(10)


def test_a_push_of_another_client_came_between_two_readings(queue: Simulation) -> None:
    assert queue.check() is None
    queue.wait()
    queue.raw_push(2)
    queue.check()
    queue.wait(3)
    assert queue.check() == exactly(20)
    queue.pop()
    queue.pop()
    queue.check()
    queue.wait(20)
    queue.raw_push(2)
    queue.wait(20)
    assert queue.check() is None  # within the last 400 seconds
    queue.wait(2)
    assert queue.check() == at_least(10)


def test_a_queue_of_other_clients_that_nobody_takes_from_grows_old(queue: Simulation) -> None:
    queue.check()
    queue.wait()
    for _ in range(60):
        queue.raw_push(10)
        queue.check()
        queue.wait()
    assert queue.check() == exactly(590)
    queue.pop()
    queue.wait()
    queue.raw_push()
    assert queue.check() == exactly(600)


def test_where_other_clients_push_and_take_the_age_is_known_since_the_last_change_only(queue: Simulation) -> None:
    for _ in range(60):
        queue.raw_push(10)
        queue.raw_pop(9)
        assert queue.check() in (None, exactly(0))
        queue.wait()
    assert queue.check() is None
    queue.wait(6)
    assert queue.check() == at_least(60)
    for _ in range(20):
        queue.raw_push(9)
        queue.raw_pop(11)
        assert queue.check() in (None, exactly(0))
        queue.wait()
    for _ in range(3):
        queue.raw_push(9)
        queue.check()
        queue.wait()
    assert queue.check() == at_least(30)  # since when nobody has taken any


def test_pushes_of_other_clients_are_known_as_long_as_the_same_message_is_next(queue: Simulation) -> None:
    queue.check()
    queue.raw_push(50)
    queue.check()
    for _ in range(40):
        queue.wait()
        queue.raw_push(2)
        queue.push()  # its answer has the depth, but not which message is next
    queue.wait()
    assert queue.check() == exactly(400)


def test_other_clients_may_take_what_is_pushed_through_the_instance(queue: Simulation) -> None:
    for _ in range(60):
        queue.push(10)
        queue.raw_pop(9)
        queue.check()
        queue.wait()
    assert queue.waiting[0].came == START + 54 * STEP_SECONDS
    assert queue.check() == exactly(50)


def test_a_push_that_is_counted_after_the_depth_was_read_is_not_one_of_other_clients(queue: Simulation) -> None:
    for _ in range(60):
        queue.push(40)
        queue.raw_pop(39)
        queue.check()
        queue.wait()
    queue.push(1)
    queue.wait()
    queue.raw_push()  # through this instance, but not answered yet
    assert queue.check() == exactly(20)


def test_messages_that_fail_and_come_back_do_not_make_those_behind_them_young(queue: Simulation) -> None:
    queue.push(20)
    queue.wait()
    held: list[Message] = []
    for _ in range(30):
        for message in held:
            queue.give_back(message)
        queue.check()
        held = [queue.reserve() for _ in range(10)]
        queue.wait()
    assert len(queue.waiting) == 10
    assert queue.check() == exactly(300)


def test_a_message_that_came_back_is_at_least_as_old_as_those_behind_it(queue: Simulation) -> None:
    queue.push()
    queue.wait()
    held = queue.reserve()
    queue.push(5)
    queue.wait(10)
    queue.give_back(held)
    assert queue.check() == at_least(100)


def test_a_message_that_came_back_has_waited_since_then_if_nothing_else_is_known(queue: Simulation) -> None:
    queue.give_back(Message(queue.now - 5000, 1))
    queue.wait(2)
    assert queue.check() == at_least(20)


def test_a_message_that_was_pushed_to_the_front_need_not_be_old(queue: Simulation) -> None:
    queue.push(3)
    queue.wait(30)
    queue.push_front()
    assert queue.check() is None
    queue.wait(3)
    assert queue.check() == at_least(30)


@pytest.mark.parametrize(
    ("do_others_push", "are_returned", "share"),
    [(False, False, 0.9), (True, False, 0.5), (False, True, 0.4), (True, True, 0)],
)
@pytest.mark.parametrize("readings", [1, 0.3])
def test_an_age_is_never_too_high(do_others_push: bool, are_returned: bool, share: float, readings: float) -> None:
    """All messages are taken through this instance. Of the ages, at least a `share` are exact."""
    exact = []
    for seed in range(8):
        rng, queue, held = random.Random(seed), Simulation(), list[Message]()
        for _ in range(300):
            queue.clock.now += rng.choice((0, 0, 0.5, 3, 20)) * rng.random()
            step = rng.randrange(10)
            if step < 3:
                queue.push(rng.randrange(1, 4))
            elif step < 4 and do_others_push:
                queue.raw_push(rng.randrange(1, 4))
            elif step < 6 and queue.waiting and not queue.waiting[0].in_front_since:
                queue.pop()
            elif step < 7 and queue.waiting and are_returned:
                held.append(queue.reserve())
            elif step < 8 and held:
                queue.give_back(held.pop(rng.randrange(len(held))))
            if rng.random() < readings:
                age = queue.check(1 + do_others_push)
                exact.append(age is not None and not age["at_least"])
    assert sum(exact) >= share * len(exact)


def test_all_processes_answer_the_same_age(tmp_path: Path) -> None:
    one, two = Simulation(tmp_path / "1.history"), Simulation(tmp_path / "2.history")
    one.push(4)
    two.waiting = one.waiting
    for each in (one, two):
        each.wait(4)
    two.pop()
    two.push(2)
    for each in (one, two):
        assert each.check() == exactly(30)
        each.wait()
    one.pop()
    one.push()
    for each in (two, one):
        assert each.check() == exactly(40)


def test_a_page_of_queues_has_ages_without_looking_at_their_messages(queue: Simulation) -> None:
    queue.push(2)
    queue.wait(3)
    assert find_age(queue.history, "jobs", 2) == exactly(20)
    assert find_age(queue.history, "jobs", 0) is None
    assert find_age(queue.history, "other", 2) is None


# --- in the answers of the app


def test_count_and_the_list_of_queues_answer_the_age(named_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "CACHE_TTL", 0)
    api, clock = named_api, Clock()
    api.app.extensions["queue"].history = History(clock=clock)

    def ages() -> list[Age | None]:
        listed = {queue["name"]: queue["age"] for queue in api.http.get("/api/queues").json["queues"]}
        return [api.get("count").json["age"], listed.get("jobs")]

    assert ages() == [None, None]
    push(api, "a", "b")
    api.client.lpush(api.key, "c")
    assert ages() == [exactly(0), exactly(0)]
    clock.pass_steps(4)
    assert ages() == [exactly(30), exactly(30)]
    api.post("pop?max=2")
    clock.pass_steps()
    assert ages() == [exactly(40), exactly(40)]


@pytest.mark.slow
def test_the_age_grows_whoever_pushes(site: App, valkey: Store, name: str) -> None:
    def age(path: str) -> Age | None:
        with urllib.request.urlopen(f"{site.url}/api/queue/{path}/count", timeout=20) as answer:
            found: Age | None = json.load(answer)["age"]
        return found

    def is_older(path: str, seconds: int) -> Age | None:
        found = age(path)
        return found if found and found["seconds"] > seconds else None

    raw, pushed = f"{name}.raw", f"{name}.pushed"
    assert age(raw) is age(pushed) is None
    valkey.client().lpush(f"queue:{raw}", "a")
    urllib.request.urlopen(f"{site.url}/api/queue/{pushed}/push", b"message=a", timeout=20).close()
    for path in (raw, pushed):
        first = until(partial(is_older, path, 0))
        later = until(partial(is_older, path, first["seconds"]))
        assert not first["at_least"] and not later["at_least"]
