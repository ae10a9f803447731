"""count and all, which read a queue and take nothing."""

import pytest
import simplejson

from tests.broker.helpers import end_leases
from tests.conftest import Api
from tests.web.helpers import NDJSON, NO_OTHERS, push


def test_count_answers_numbers_and_the_text_of_the_first_version(api: Api) -> None:
    assert api.get("count").json == {"success": True, "count": 0, "message": "0", **NO_OTHERS}
    api.post("push", json={"messages": ["a", "b"]})
    answer = api.get("count")
    assert (answer.status_code, answer.json) == (200, {"success": True, "count": 2, "message": "2", **NO_OTHERS})


def test_count_counts_messages_whose_leases_ended_as_waiting(api: Api) -> None:
    push(api, "a")
    api.post("reserve")
    assert api.get("count").json == {"success": True, "message": "0", "count": 0, **NO_OTHERS, "reserved": 1}
    end_leases(api.queue)
    assert api.get("count").json == {"success": True, "message": "1", "count": 1, **NO_OTHERS}
    assert api.get("all").json["messages"] == ["a"]


def test_all_answers_every_message_next_to_be_popped_first(api: Api) -> None:
    assert api.get("all").json == {"success": True, "messages": [], "count": 0}
    api.post("push", json={"messages": ["a", "b", "c"]})
    for _ in range(2):
        answer = api.get("all")
        assert (answer.status_code, answer.json) == (200, {"success": True, "messages": ["a", "b", "c"], "count": 3})


@pytest.mark.parametrize("depth", [7, 1500])
def test_all_answers_windows(api: Api, depth: int) -> None:
    texts = [f"{number}" for number in range(depth)]
    api.post("push", json={"messages": texts})
    for offset, limit in [(0, 3), (3, 3), (5, 9), (9, 1), (0, 0), (depth - 1, 1), (depth, 5), (1, 1400), (10**12, 1)]:
        answer = api.get("all", query_string={"offset": offset, "limit": limit})
        assert answer.json == {"success": True, "messages": texts[offset : offset + limit], "count": depth}
    assert api.get("all", query_string={"offset": 2}).json["messages"] == texts[2:]


def test_all_previews_show_the_beginning_and_the_size(api: Api) -> None:
    api.post("push", json={"messages": ["ěšč", "🐎🐎", "ab", {"base64": "/w=="}, "x" * 100_000]})
    answer = api.get("all", query_string={"preview": 2})
    assert answer.json["messages"] == [
        {"preview": "ěš", "bytes": 6},
        {"preview": "🐎🐎", "bytes": 8},
        {"preview": "ab", "bytes": 2},
        {"preview": {"base64": "/w=="}, "bytes": 1},
        {"preview": "xx", "bytes": 100_000},
    ]


def test_push_takes_back_what_all_answers_as_ndjson(api: Api) -> None:
    api.post("push", json={"messages": ["a", "two\nlines", {"base64": "/wA="}, "[1]"]})
    before = api.messages()
    answer = api.get("all", headers={"Accept": NDJSON})
    assert (answer.status_code, answer.content_type) == (200, NDJSON)
    lines = [simplejson.loads(line) for line in answer.data.splitlines()]
    assert lines == ["a", "two\nlines", {"base64": "/wA="}, "[1]"]
    assert api.post("push", answer.data, NDJSON).json["pushed"] == 4
    assert api.messages() == before + before
