"""GET /api/queues. Which queues are listed is tested in tests/broker/test_listing.py."""

import json
import urllib.request

from app import create_app
from broker.queue import ReliableQueue
from settings import Settings
from tests.servers import App, FakeRedis, Store
from tests.web.helpers import NO_OTHERS


def test_the_route_lists_the_queues_whose_name_matches(name: str) -> None:
    client = FakeRedis()
    http = create_app(Settings(), client).test_client()
    ReliableQueue(client, name).push(b"a")
    assert http.get("/api/queues", query_string={"match": name}).json == {
        "success": True,
        "queues": [{"name": name, "count": 1, **NO_OTHERS}],
        "complete": True,
        "unnamed": 0,
    }


def test_a_pattern_is_at_most_as_long_as_a_name_of_dead_letters() -> None:
    http = create_app(Settings(), FakeRedis()).test_client()
    assert http.get("/api/queues", query_string={"match": "x" * 133}).status_code == 200
    assert http.get("/api/queues?match=%FF%00[!").status_code == 200
    assert http.get("/api/queues", query_string={"match": "x" * 134}).status_code == 400


def test_the_route_answers_under_gunicorn(site: App, valkey: Store, name: str) -> None:
    ReliableQueue(valkey.client(), name).push(b"a")
    answer = json.load(urllib.request.urlopen(f"{site.url}/api/queues?match={name}"))
    assert answer["queues"] == [{"name": name, "count": 1, **NO_OTHERS}]
