"""The samples are messages that these programs wrote, or were written as their sources write them."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.summaries import TIMES, Summary, shape_of, summarize
from broker.summaries.parts import MAX_FACT, MAX_PARSED, MAX_TEXT
from broker.summaries.shapes import MAX_READ

SAMPLES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("samples.json").read_text(encoding="utf-8"))
SIDEKIQ = {"class": "HardWorker", "jid": "b4a577edbccf1d805744efa9", "args": [4]}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def bytes_of(sample: dict[str, Any]) -> bytes:
    return bytes.fromhex(sample["hex"]) if "hex" in sample else sample["message"].encode()


def objects() -> list[str]:
    return [sample["message"] for sample in SAMPLES if sample.get("message", "").startswith("{")]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place in a JSON value: its container, and the name or index there."""
    for key in list(value) if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0):
        yield value, key
        yield from places(value[key])


def text_of(message: Any) -> str | None:
    found = summarize(json.dumps(message).encode())
    return found.text if found else None


def assert_can_be_shown(found: Summary | None) -> None:
    if found:
        json.dumps([found.text, found.facts], ensure_ascii=False, allow_nan=False).encode()
        assert len(found.text) <= MAX_TEXT
        assert all(len(str(fact)) <= MAX_FACT for fact in found.facts.values())
        assert all(abs(fact) < 2**53 for fact in found.facts.values() if isinstance(fact, int))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["system"])
def test_a_message_of_a_known_program_is_summarized(sample: dict[str, Any]) -> None:
    expected = Summary(sample["shape"], sample["text"], sample["facts"])
    assert summarize(bytes_of(sample), sample.get("key", "")) == expected


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["system"])
def test_the_head_of_a_message_has_its_shape_or_none(sample: dict[str, Any]) -> None:
    message, key = bytes_of(sample), sample.get("key", "")
    shapes = {shape_of(message[:size], key, is_whole=False) for size in range(0, len(message), 3)}
    assert shapes <= {sample["shape"], None}


def test_a_head_is_summarized_as_far_as_it_goes() -> None:
    head = b'{"retry":true,"class":"HardWorker","jid":"b4a577edbccf1d805744efa9","args":[4,"b\xc3'
    assert summarize(head, is_whole=False) == Summary(
        "sidekiq", "HardWorker(…)", {"id": "b4a577edbccf1d805744efa9", "retry": True}
    )
    assert summarize(head) is None


@pytest.mark.parametrize(
    "head", ['{"class":"A","args":[4],"ji', '{[1]:2,"class":"A","jid":"b"}', "12", "saq:job:high:6f3"]
)
def test_a_head_that_tells_no_shape_has_none(head: str) -> None:
    assert summarize(head.encode(), "bull:mails:wait", is_whole=False) is None


@pytest.mark.parametrize(
    "message",
    [
        "",
        "1",
        "hello",
        "763873cb-96c1-4edf-b7d8-2b62c682f38b",
        '"text"',
        "[1]",
        "{}",
        "{",
        '{"message":"hi"}',
        '{"class":"economy","seat":4}',
        '{"job":"cook","name":"Ann"}',
        '{"type":"order","id":4,"source":"web"}',
        '{"task":"t","args":[1]}',
        '{"class":"A","args":[1]',
        '{"class":"A","args":[1]} and more',
        '{"class":4,"args":[1],"jid":"b"}',
        '{"class":"A","args":"x","jid":"b"}',
        '{"task_id":"a","task_name":"t","labels":4}',
        '{"@timestamp":"soon","@version":"1","message":"hi"}',
    ],
)
def test_an_ordinary_message_has_no_shape(message: str) -> None:
    assert summarize(message.encode()) is None


@pytest.mark.parametrize("key", ["bull:mails:completed", "mails", "rq:workers", "asynq:default:pending"])
def test_a_short_text_is_an_id_only_in_the_list_of_a_program_that_keeps_ids(key: str) -> None:
    assert summarize(b"12", key) is None


@pytest.mark.parametrize("message", ["1 2", "1\x07", "a" * 201, ""])
def test_what_cannot_be_an_id_is_none_in_any_list(message: str) -> None:
    assert summarize(message.encode(), "bull:mails:wait") is None


@given(st.sampled_from(SAMPLES), st.data())
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_summarized_or_not_but_never_fail(sample: dict[str, Any], data: st.DataObject) -> None:
    message = bytes_of(sample)
    start, end = sorted(data.draw(st.integers(0, len(message))) for _ in range(2))
    middle = data.draw(st.binary(max_size=8) | st.just(message[start:end] * 2))
    for key in ("", sample.get("key", "")):
        for is_whole in (True, False):
            assert_can_be_shown(summarize(message[:start] + middle + message[end:], key, is_whole))


@given(st.sampled_from(objects()), json_values, st.data())
@settings(max_examples=300, deadline=None)
def test_a_member_of_any_kind_never_fails(message: str, value: Any, data: st.DataObject) -> None:
    changed = json.loads(message)
    container, name = data.draw(st.sampled_from(list(places(changed))))
    container[name] = value
    assert_can_be_shown(summarize(json.dumps(changed).encode()))
    body = [[value], {"x": value}, {}]
    celery = {
        "body": json.dumps(data.draw(st.sampled_from([body, value, changed]))),
        "content-type": "application/json",
    }
    assert_can_be_shown(summarize(json.dumps({**celery, "headers": {"task": "t"}, "properties": value}).encode()))


@pytest.mark.parametrize(
    "value",
    [
        "[" * 100_000,
        "[" * 900 + "]" * 900,
        '{"a":' * 100_000,
        "9" * 5000,
        "1e999",
        "NaN",
        '"\\ud800"',
        '"\x00"',
        "-0",
        '"0001-01-01T00:00:00+23:59"',
        '"9999-12-31T23:59:59-23:59"',
        '"2026-W49"',
        "1e14",
        "9" * 20,
        '"' + "a" * 1000 + '"',
        "-1e300",
    ],
)
def test_an_extreme_value_never_fails(value: str) -> None:
    for name in ("args", "created_at", "retry_count", "tags", "queue"):
        message = f'{{"class":"A","jid":"b","{name}":{value}}}'
        for is_whole in (True, False):
            assert_can_be_shown(summarize(message.encode(), is_whole=is_whole))


def test_what_the_bytes_of_a_pickle_would_do_is_not_done(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "loaded",)

    harm = pickle.dumps(Harm())
    huey = next(bytes_of(sample) for sample in SAMPLES if sample["shape"] == "huey")
    for message in (harm, huey[:-2] + harm):
        summarize(message)
    celery = {"content-type": "application/x-python-serialize", "properties": {"delivery_tag": "1"}, "headers": {}}
    assert text_of({**celery, "body": harm.hex()}) == "(pickle)"
    assert not (tmp_path / "loaded").exists()


def test_large_arguments_are_not_read_and_long_strings_are_skipped() -> None:
    assert text_of({**SIDEKIQ, "args": [0] * MAX_PARSED}) == "HardWorker(…)"
    known = {"task": "t.charge", "argsrepr": "('aa...',)", "kwargsrepr": "{}"}
    celery = {"content-type": "application/json", "headers": known, "properties": {}}
    assert text_of({"body": "A" * (MAX_READ - 500), **celery}) == "t.charge('aa...')"
    assert text_of({"body": "A" * MAX_READ, **celery}) is None


def test_of_a_large_object_few_members_are_read() -> None:
    many, large = dict.fromkeys(map(str, range(50_000)), 0), dict.fromkeys(map(str, range(90)), [0] * 1000)
    assert text_of({**SIDEKIQ, **many}) == text_of({**SIDEKIQ, **large}) == "HardWorker(4)"
    assert text_of({**many, **SIDEKIQ}) is None
    assert text_of({**large, **SIDEKIQ}) is None


def test_arguments_that_are_no_list_are_not_shown() -> None:
    assert text_of({"task_id": "a", "task_name": "t", "labels": {}, "args": "text"}) == "t(…)"


def test_a_long_summary_is_cut() -> None:
    text = text_of({**SIDEKIQ, "args": ["a" * 1000]})
    assert text is not None and len(text) == MAX_TEXT and text.endswith("…")


@pytest.mark.parametrize(
    "when, seconds",
    [
        (1796150791.5, 1796150791.5),
        (1796150791500, 1796150791.5),
        ("2026-12-01T18:46:31.5Z", 1796150791.5),
        ("2026-12-01T19:46:31", "2026-12-01T19:46:31"),
        ("soon", None),
        (True, None),
        (None, None),
    ],
)
def test_times_are_unix_seconds_however_a_program_writes_them(when: object, seconds: object) -> None:
    found = summarize(json.dumps({**SIDEKIQ, "created_at": when}).encode())
    assert found and found.facts.get("created") == seconds and "created" in TIMES
