"""Summaries of the messages of other programs, in what the API answers."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from broker.attached.names import parse_lists
from settings import Settings
from tests.conftest import AppOn
from tests.servers import ROOT, App, Store
from tests.web.lists import Follower

SAMPLES = json.loads((ROOT / "tests/broker/summaries/samples.json").read_text(encoding="utf-8"))
CELERY: dict[str, Any] = SAMPLES[0]
SUMMARY = {name: CELERY[name] for name in ("shape", "text", "facts")}


@pytest.fixture
def messages_of(backend: Any, app_on: AppOn) -> Callable[..., list[Any]]:
    """Return what `all` answers of a list in which a Celery task waits between two other messages."""
    backend.flushdb()
    backend.lpush("celery", "first", CELERY["message"], "t.charge(4, amou")
    http: Any = app_on(Settings(redis_url="redis://unused", lists=parse_lists("celery,mine")), backend).test_client()

    def ask(query: str) -> list[Any]:
        found: list[Any] = http.get("/api/queue/celery/all" + query).json["messages"]
        return found

    return ask


@pytest.mark.parametrize("query", ["preview=20", "preview=20&details=1", "details=1", "preview=20&contains=a"])
def test_a_task_is_listed_with_its_summary(messages_of: Callable[..., list[Any]], query: str) -> None:
    [task] = [one for one in messages_of("?" + query) if "summary" in one]
    assert task["summary"] == SUMMARY
    if "preview" in query:
        assert (task["preview"], task["bytes"]) == (CELERY["message"][:20], len(CELERY["message"]))


def test_a_search_finds_what_a_summary_shows(messages_of: Callable[..., list[Any]]) -> None:
    assert [one["position"] for one in messages_of("?contains=T.charge(4, AMOUNT=6&preview=1")] == [1]
    assert [one["position"] for one in messages_of("?contains=charge(4, amou&preview=1")] == [1, 2]


def test_a_message_of_our_own_queue_has_no_summary(backend: Any, app_on: AppOn) -> None:
    http: Any = app_on(Settings(redis_url="redis://unused"), backend).test_client()
    http.post("/api/queue/mine/push", json={"message": CELERY["message"]})
    [own] = http.get("/api/queue/mine/all?preview=20&details=1").json["messages"]
    assert "summary" not in own
    assert http.get("/api/queue/mine/all?contains=t.charge(4, amount").json["messages"] == []


def test_the_events_of_a_list_have_summaries(own_store: Callable[..., Store], serve: Callable[..., App]) -> None:
    store = own_store()
    store.client().lpush("celery", CELERY["message"], "mine-1")
    app = serve(REDIS_URL=store.url, LISTS="celery", WEB_CONCURRENCY="1")
    follower = Follower(app, "/api/queue/celery/events")
    follower.until_count(2)
    assert [one.get("summary") for one in follower.last["next"]] == [SUMMARY, None]
