"""LISTS_WRITABLE: a person may tidy up the list of another program, at either end, and undo it; nobody may pop."""

import random
from typing import Any

import pytest

from broker.attached.names import parse_lists
from broker.queue import ReliableQueue
from settings import Settings
from tests.conftest import AppOn

LISTS = "right,right2,left@left,left2@left"


class Lists:
    """The queues of an app with writable lists, on a store."""

    def __init__(self, app_on: AppOn, client: Any) -> None:
        settings = Settings(redis_url="redis://unused", lists=parse_lists(LISTS), lists_writable=True)
        self.client = client
        self.http: Any = app_on(settings, client).test_client()

    def post(self, name: str, operation: str, **sent: Any) -> Any:
        return dict(self.http.post(f"/api/queue/{name}/{operation}", json=sent).json or {})

    def shown(self, name: str) -> list[str]:
        answer: Any = self.http.get(f"/api/queue/{name}/all").json
        return list(answer["messages"])

    def fill(self, name: str, *messages: str) -> None:
        """Push as the program of the list does."""
        getattr(self.client, "rpush" if name.startswith("left") else "lpush")(name, *messages)


@pytest.fixture
def lists(app_on: AppOn, database: Any) -> Lists:
    return Lists(app_on, database)


@pytest.fixture(params=["right", "left"])
def end(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_removed_message_comes_back_to_its_place(lists: Lists, end: str) -> None:
    lists.fill(end, "a", "b", "c")
    removed = lists.post(end, "remove", position=1, message="b", undo=True)
    assert lists.shown(end) == ["a", "c"]
    assert lists.post(end, "remove", position=1, message="b")["error"] == "stale"
    assert lists.post(end, "restore", undo=removed["undo"])["restored"] == 1
    assert lists.shown(end) == ["a", "b", "c"]


def test_what_is_cleared_comes_back_in_order_in_front_of_what_came_since(lists: Lists, end: str) -> None:
    for newer in (["d"], [f"n{number}" for number in range(2000)]):  # few join the others, many are put behind
        lists.client.delete(end)
        lists.fill(end, "a", "b", "c")
        cleared = lists.post(end, "clear")
        assert cleared["cleared"] == 3 and lists.shown(end) == []
        lists.fill(end, *newer)
        lists.post(end, "restore", undo=cleared["undo"])
        assert lists.shown(end) == ["a", "b", "c", *newer]


def test_push_adds_what_its_program_takes_last_or_next(lists: Lists, end: str) -> None:
    lists.fill(end, "a")
    assert lists.post(end, "push", messages=["b", "c"])["count"] == 3
    lists.post(end, "push", messages=["x", "y"], front=True)
    key = {"Idempotency-Key": "once"}
    for _ in range(2):
        lists.http.post(f"/api/queue/{end}/push", json={"message": "d"}, headers=key)
    many = [f"m{number}" for number in range(1500)]  # more than one command has
    lists.post(end, "push", messages=many)
    lists.http.post(f"/api/queue/{end}/push", json={"messages": many}, headers={"Idempotency-Key": "many"})
    assert lists.shown(end) == ["x", "y", "a", "b", "c", "d", *many, *many]
    assert lists.post(end, "push", message="x", delay=1)["parameter"] == "delay"


@pytest.mark.parametrize("to", ["right2", "left2", "ours"])
def test_messages_move_in_order_and_back(lists: Lists, end: str, to: str) -> None:
    lists.fill(end, "a1", "b", "c1", "d")
    lists.post(to, "push", message="z")
    some = lists.post(end, "move", to=to, contains="1")
    assert (lists.shown(end), lists.shown(to)) == (["b", "d"], ["z", "a1", "c1"])
    rest = lists.post(end, "move", to=to)
    one = lists.post(to, "move", to=end, position=0, message="z")
    assert (lists.shown(end), lists.shown(to)) == (["z"], ["a1", "c1", "b", "d"])
    for name, moved in ((to, one), (end, rest), (end, some)):
        assert lists.post(name, "restore", undo=moved["undo"])["restored"] == moved["moved"]
    assert (sorted(lists.shown(end)), lists.shown(to)) == (["a1", "b", "c1", "d"], ["z"])


def test_what_no_program_but_its_own_may_do_stays_refused(lists: Lists, end: str) -> None:
    lists.fill(end, "a")
    for operation in ("pop", "reserve", "ack", "release", "extend", "settle", "pause", "resume", "settings", "result"):
        assert lists.post(end, operation)["error"] == "attached_list", operation
    assert lists.http.get(f"/api/queue/{end}/count").json["attached"]["may"] == [
        "push",
        "remove",
        "clear",
        "restore",
        "move",
    ]
    assert lists.shown(end) == ["a"]


def test_a_list_at_either_end_behaves_as_a_queue_of_ours(lists: Lists, end: str) -> None:
    """Do the same random steps to a list and to a queue of ours, and compare all answers and messages."""
    chance = random.Random(end)
    undos: list[tuple[str, str]] = []

    def both(operation: str, **sent: Any) -> Any:
        theirs, ours = (lists.post(name, operation, **sent) for name in (end, "ours"))
        if theirs.get("undo"):
            undos.append((theirs["undo"], ours["undo"]))
        assert {**theirs, "undo": ""} == {**ours, "undo": ""}, (operation, sent)

    for step in range(150):
        waiting = lists.shown(end)
        assert waiting == lists.shown("ours")
        position = chance.randrange(len(waiting) + 1)
        message = waiting[position] if position < len(waiting) else "none"
        match chance.randrange(8):
            case 0 | 1 | 2:
                new = [f"{step}-{number}" for number in range(chance.randrange(1, 5))]
                both("push", messages=new, front=chance.random() < 0.3)
            case 3:
                both("remove", position=position, message=message, undo=True)
            case 4:
                both("remove", contains=f"-{chance.randrange(4)}")
            case 5:
                placed = [
                    {"position": at, "message": waiting[at]}
                    for at in sorted(chance.sample(range(len(waiting)), min(2, len(waiting))))
                ]
                both("remove", messages=placed)
            case 6 if chance.random() < 0.3:
                both("clear")
            case _ if undos:
                theirs, ours = undos.pop(chance.randrange(len(undos)))
                assert lists.post(end, "restore", undo=theirs) == lists.post("ours", "restore", undo=ours)
    assert ReliableQueue(lists.client, "ours").count() == len(lists.shown(end))


def test_sidekiqs_queues_are_tidied_the_same_way(lists: Lists) -> None:
    lists.client.sadd("queues", "default")
    lists.client.lpush("queue:default", "a", "b")
    assert lists.post("default", "pop")["error"] == "attached_list"
    assert lists.post("default", "remove", position=0, message="a")["success"]
    assert lists.shown("default") == ["b"]
