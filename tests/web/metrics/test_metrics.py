"""GET /metrics: its values, its access, and that all processes count together."""

import os
import re
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from broker.queue import ReliableQueue
from settings import Settings
from tests.broker.helpers import end_leases
from tests.conftest import Api, AppOn
from tests.servers import App, FakeRedis, Proxy, Store, until
from tests.web.helpers import NDJSON, TEXT, check_error, push
from web import counters
from web.counters import MAX_QUEUES, OTHERS, Counters
from web.metrics.exposition import COUNTERS, GAUGES, REDIS_COUNTERS

Values = dict[tuple[str, ...], float]


def values_of(text: str, parse: Callable[[str], Any] = parse_text) -> Values:
    """Return the value of each sample by its name and the values of its labels, ordered by the names of the labels."""
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def scrape(api: Api) -> Values:
    answer = api.http.get("/metrics")
    assert answer.status_code == 200
    return values_of(answer.text)


@pytest.fixture
def api(named_api: Api) -> Api:
    """The metrics do not depend on how the queue is addressed."""
    return named_api


def test_gauges_show_the_state_of_a_queue(api: Api) -> None:
    push(api, "a", "b", "c", "d")
    api.post("reserve")
    ReliableQueue(api.client, "jobs.dead").push(b"x")
    api.queue.report_waiters("process", 3, 30)
    found = scrape(api)
    assert found["queue_waiting_messages", "jobs"] == 3
    assert found["queue_reserved_messages", "jobs"] == 1
    assert found["queue_dead_messages", "jobs"] == 1
    assert found["queue_waiters", "jobs"] == 3
    assert found["queue_head_age_seconds", "jobs"] == 0
    assert found["queue_redis_up",] == found["queue_listing_complete",] == 1
    assert (found["queue_queues",], found["queue_queues_unlabelled",]) == (1, 0)


def test_an_emptied_queue_is_still_shown(api: Api) -> None:
    push(api, "a")
    api.post("pop")
    assert scrape(api)["queue_waiting_messages", "jobs"] == 0


def test_the_default_queue_is_always_shown(api: Api) -> None:
    assert scrape(api)["queue_waiting_messages", "another"] == 0


def test_every_message_is_counted_once(api: Api) -> None:
    push(api, "a", "b", "c", "d", "e")
    api.post("push", b"f", TEXT)
    api.post("push", b'"g"\n"h"\n', NDJSON)
    api.post("pop")
    api.post("pop?max=2")
    assert api.post("pop", headers={"Accept": "text/plain"}).data == b"d"
    ids = [one["id"] for one in api.post("reserve?max=3").json["messages"]]
    api.post("ack", json={"id": ids[0]})
    api.post("release", json={"ids": ids[1:]})
    ids = [one["id"] for one in api.post("reserve?max=3").json["messages"]]
    api.post("settle", json={"acks": ids[:2], "releases": ids[2:]})
    found = scrape(api)
    events = ("pushed", "popped", "reserved", "acked", "released")
    assert [found[f"queue_{event}_total", "jobs"] for event in events] == [8, 4, 6, 3, 3]
    assert found["queue_requests_total", "pop", "200"] == 3


def test_empty_and_failed_requests_count_no_messages(api: Api) -> None:
    api.post("pop")
    api.post("pop?max=5")
    api.post("pop", headers={"Accept": "text/plain"})
    api.post("push", json={"message": ""})
    check_error(api.post("ack", json={"id": "x"}), 409, "stale")
    found = scrape(api)
    for event in ("popped", "pushed", "acked"):
        assert not found.get((f"queue_{event}_total", "jobs"))
    assert found["queue_requests_total", "push", "400"] == found["queue_requests_total", "ack", "409"] == 1


def test_a_stream_that_fails_counts_the_messages_that_it_pushed(api: Api) -> None:
    answer = api.post("push", b'"a"\n"b"\n{\n', NDJSON)
    assert (answer.status_code, answer.json["pushed"]) == (400, 2)
    assert scrape(api)["queue_pushed_total", "jobs"] == 2


def test_a_repeated_request_counts_its_messages_once(api: Api) -> None:
    for _ in range(2):
        api.post("push", json={"messages": ["a", "b"]}, headers={"Idempotency-Key": "push"})
        api.post("push", json={"messages": ["c"], "delay": 9}, headers={"Idempotency-Key": "later"})
    for _ in range(3):
        api.post("pop", headers={"Idempotency-Key": "pop"})
    found = scrape(api)
    assert (found["queue_pushed_total", "jobs"], found["queue_popped_total", "jobs"]) == (3, 1)


def test_expired_leases_and_dead_letters_are_counted(api: Api) -> None:
    api = api.with_settings(max_deliveries=1)
    api.post("push", json={"message": "a"})
    api.post("reserve")
    end_leases(ReliableQueue(api.client, api.name, max_deliveries=1))
    for _ in range(2):
        found = scrape(api)
        assert found["queue_expired_total", "jobs"] == found["queue_buried_total", "jobs"] == 1


def test_requests_are_counted_by_operation_or_kind_of_page(api: Api) -> None:
    for path in ("/", "/q/x", "/healthz", "/api/queues", "/static/icon.svg", "/login", "/no/such", "/api/queue/pop"):
        api.http.get(path)
    api.get("count")
    found = scrape(api)
    requests = {key[1:]: value for key, value in found.items() if key[0] == "queue_requests_total"}
    assert requests == {
        ("page", "200"): 2,
        ("healthz", "200"): 1,
        ("queues", "200"): 1,
        ("static", "200"): 1,
        ("page", "302"): 1,
        ("other", "404"): 1,
        ("other", "405"): 1,
        ("count", "200"): 1,
    }
    assert scrape(api)["queue_requests_total", "metrics", "200"] == 1


def test_the_histogram_is_cumulative_and_complete(api: Api) -> None:
    counts = api.http.application.extensions["queue"].counters
    for seconds in (0.0005, 0.001, 0.3, 99):
        counts.count_request("push", "200", seconds)
    found = scrape(api)
    buckets = {key[1]: value for key, value in found.items() if key[0] == "queue_request_seconds_bucket"}
    assert (buckets["0.001"], buckets["0.25"], buckets["0.5"], buckets["60.0"], buckets["+Inf"]) == (2, 2, 3, 3, 4)
    assert list(buckets.values()) == sorted(buckets.values())
    assert found["queue_request_seconds_count", "push"] == 4
    assert found["queue_request_seconds_sum", "push"] == pytest.approx(99.3015)


def test_the_accept_header_chooses_openmetrics(api: Api) -> None:
    push(api, "a")
    plain = api.http.get("/metrics")
    assert plain.content_type == "text/plain; version=0.0.4; charset=utf-8"
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"
    answer = api.http.get("/metrics", headers={"Accept": accept})
    assert answer.content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    assert values_of(answer.text, parse_openmetrics)["queue_pushed_total", "jobs"] == 1


@pytest.mark.parametrize("path", ["/metrics?x=1"])
def test_an_unknown_parameter_is_refused(api: Api, path: str) -> None:
    assert api.http.get(path).status_code == 400


@pytest.mark.parametrize("path", ["/metrics", "/healthz"])
def test_a_malformed_probe_is_refused_in_json(api: Api, path: str) -> None:
    for answer, status, error in [
        (api.http.get(path + "?x=1"), 400, "unknown_parameter"),
        (api.http.post(path), 405, "method_not_allowed"),
    ]:
        check_error(answer, status, error)


def test_it_requires_the_token(app_on: AppOn) -> None:
    client = app_on(Settings(api_tokens=(b"correct-horse-battery",)), FakeRedis()).test_client()
    assert client.get("/metrics").status_code == 401
    headers = {"Authorization": "Bearer correct-horse-battery"}
    assert client.get("/metrics", headers=headers).status_code == 200


def test_queues_beyond_the_limit_of_labels_are_added_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.metrics.exposition.MAX_QUEUES", 3)
    monkeypatch.setattr(counters, "MAX_QUEUES", 3)
    for number in range(5):
        api.http.post(f"/api/queue/n{number}/push", json={"messages": ["a"] * (number + 1)})
    found = scrape(api)
    waiting = {key[1]: value for key, value in found.items() if key[0] == "queue_waiting_messages"}
    assert waiting == {"another": 0, "n4": 5, "n3": 4, OTHERS: 6}
    assert (found["queue_queues",], found["queue_queues_unlabelled",]) == (5, 3)
    pushed = {key[1]: value for key, value in found.items() if key[0] == "queue_pushed_total"}
    assert pushed == {"n0": 1, "n1": 2, "n2": 3, OTHERS: 9}


def test_a_broken_queue_does_not_hide_others(api: Api) -> None:
    push(api, "a")
    api.client.set("{queue:jobs}:clock", "x")
    api.client.set("{queue:broken}:reserved", "x")
    push(api.of("sound"), "a")
    assert scrape(api)["queue_waiting_messages", "sound"] == 1


# --- all processes together


def metrics_of(app: App) -> Values:
    """Return the metrics from either worker, on a new connection."""
    with urllib.request.urlopen(f"{app.url}/metrics", timeout=20) as answer:
        return values_of(answer.read().decode())


def pushes(app: App, name: str, number: int) -> None:
    for _ in range(number):
        urllib.request.urlopen(f"{app.url}/api/queue/{name}/push", b"message=a", timeout=20).close()


@pytest.mark.slow
def test_all_workers_count_together_even_after_a_kill_and_a_reload(
    serve: Callable[..., App], valkey: Store, name: str, tmp_path: Path
) -> None:
    app = serve(REDIS_URL=valkey.url, TMPDIR=str(tmp_path))
    pushes(app, name, 30)
    for _ in range(6):
        assert metrics_of(app)["queue_pushed_total", name] == 30
    before = app.workers()
    os.kill(before[0], signal.SIGKILL)
    until(lambda: len(app.workers()) == 2 and before[0] not in app.workers())
    pushes(app, name, 10)
    app.process.send_signal(signal.SIGHUP)
    until(lambda: len(app.workers()) == 2 and not set(before) & set(app.workers()))
    pushes(app, name, 10)
    for _ in range(6):
        found = metrics_of(app)
        assert found["queue_pushed_total", name] == found["queue_requests_total", "push", "200"] == 50
        assert found["queue_waiting_messages", name] == 50
    [folder] = tmp_path.glob("queue-counts-*")
    assert len(list(folder.glob("*.counts"))) <= 4  # at a reload two old and two new workers live at once
    app.end()
    assert not folder.exists()


@pytest.mark.slow
def test_while_redis_is_unavailable_only_the_counts_are_shown(serve: Callable[..., App], proxy: Proxy) -> None:
    app = serve(REDIS_URL=proxy.url, WEB_CONCURRENCY="1")
    pushes(app, "away", 1)
    proxy.refuse()
    with pytest.raises(urllib.error.HTTPError, match="503"):
        pushes(app, "away", 1)
    found = until(lambda: (values := metrics_of(app))["queue_redis_up",] == 0 and values)
    assert found["queue_pushed_total", "away"] == 1
    assert found["queue_redis_errors_total", "redis_unavailable"] == 1
    assert found["queue_requests_total", "push", "503"] == 1
    assert ("queue_waiting_messages", "default") not in found
    assert "\n503 redis_unavailable: POST '/api/queue/away/push': Cannot reach Redis" in app.log.read_text()


@pytest.mark.slow
def test_the_answer_is_bounded_for_ten_thousand_queues(own_store: Callable[..., Store], app_on: AppOn) -> None:
    store = own_store()
    client = store.client()
    pipeline = client.pipeline(transaction=False)
    for number in range(10_000):
        pipeline.lpush(f"queue:n{number}", *[b"a"] * (1 + number % 7))
    pipeline.execute()
    answer = app_on(Settings(redis_url=store.url), client).test_client().get("/metrics")
    found = values_of(answer.text)
    assert sum(key[0] == "queue_waiting_messages" for key in found) == MAX_QUEUES + 1
    assert found["queue_queues_unlabelled",] >= found["queue_queues",] - MAX_QUEUES > 0
    assert len(answer.data) < 1 << 19


def test_a_new_process_continues_the_counts_of_a_file(tmp_path: Path) -> None:
    first, other = Counters(tmp_path / "0"), Counters(tmp_path / "1")
    first.count_messages("push", "jobs", {"success": True})
    other.count_messages("push", "jobs", {"success": True, "pushed": 5})
    again = Counters(tmp_path / "0")
    again.count_messages("push", "jobs", {"success": True})
    assert again.totals() == other.totals() == {("pushed", "jobs"): (7, 0)}


def test_a_pop_that_cannot_be_counted_is_answered(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    push(api, "a")
    push(api, "b")
    services = api.app.extensions["queue"]
    services.counters = services.history = None
    assert [api.post("pop").json["message"] for _ in "ab"] == ["a", "b"]
    assert sum("Cannot record_messages" in line for line in caplog.messages) <= 1


def test_every_name_is_valid_in_prometheus() -> None:
    names = [*GAUGES, *REDIS_COUNTERS, *COUNTERS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("queue_[a-z_]+[a-z]", name) for name in names)
