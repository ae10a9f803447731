"""The history of a queue that the processes record: depths, messages in and out, and unknown steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Api
from tests.web.helpers import NDJSON, TEXT, push
from tests.web.live.fakes import START, Clock
from web.live.history import MAX_QUEUES, MAX_SILENT_STEPS, MAX_STEPS, STEP_SECONDS, History


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_depths_and_counts_are_kept_by_step(clock: Clock) -> None:
    kept = History(clock=clock)
    for depth in (3, 9, 4):
        kept.record_depth("jobs", depth)
    assert kept.steps("jobs") is None  # the step has not ended
    clock.pass_steps()
    kept.add_answer("push", "jobs", {"success": True, "pushed": 5, "count": 9})
    kept.add_answer("pop", "jobs", {"success": True, "message": "a"})
    kept.add_answer("reserve", "jobs", {"success": True, "messages": [{"deliveries": 1}, {"deliveries": 3}]})
    kept.record_depth("jobs", 6)
    clock.pass_steps()
    assert kept.steps("jobs") == {
        "at": START,
        "step": STEP_SECONDS,
        "max": [9, 9],
        "count": [4, 6],
        "in": [1, 5],  # 3 waited at first and 4 at the end
        "out": [0, 3],
    }
    assert kept.steps("jobs", after=START // STEP_SECONDS) == {
        "at": START + STEP_SECONDS,
        "step": STEP_SECONDS,
        "max": [9],
        "count": [6],
        "in": [5],
        "out": [3],
    }
    assert kept.steps("jobs", after=START // STEP_SECONDS + 1) is None
    assert kept.steps("other") is None


def flows(kept: History) -> tuple[list[int | None], list[int | None]]:
    found = kept.steps("jobs")
    assert found
    return found["in"], found["out"]


def test_what_other_clients_push_and_pop_is_derived_from_the_depth(clock: Clock) -> None:
    kept = History(clock=clock)
    kept.record_depth("jobs", 10)
    clock.pass_steps()
    kept.add_answer("push", "jobs", {"success": True, "pushed": 2, "count": 12})
    kept.record_depth("jobs", 19)
    clock.pass_steps()
    kept.add_answer("pop", "jobs", {"success": True, "message": "a"})
    kept.record_depth("jobs", 3)
    clock.pass_steps()
    kept.add_answer("push", "jobs", {"success": True, "id": "d", "message": "a", "count": 3})  # delayed: it joins later
    clock.pass_steps()
    assert flows(kept) == ([0, 9, 0, 0], [0, 0, 16, 0])


def test_messages_enqueued_in_the_first_step_are_counted_too(clock: Clock) -> None:
    kept = History(clock=clock)
    kept.add_answer("push", "jobs", {"success": True, "pushed": 2, "count": 12})  # ten were there before
    kept.record_depth("jobs", 15)
    kept.add_answer("pop", "jobs", {"success": True, "message": "a"})
    kept.record_depth("jobs", 14)
    clock.pass_steps()
    assert flows(kept) == ([5], [1])


def test_steps_that_no_process_saw_are_unknown_unless_they_are_few(clock: Clock) -> None:
    kept = History(clock=clock)
    kept.record_depth("jobs", 4)
    clock.pass_steps(3)
    before = kept.steps("jobs")
    assert before and before["count"] == [4, None, None]  # until the next reading
    kept.record_depth("jobs", 7)
    after = kept.steps("jobs")
    assert after and after["count"] == [4, 4, 4]
    clock.pass_steps(MAX_SILENT_STEPS + 2)
    kept.record_depth("jobs", 1)
    clock.pass_steps()
    found = kept.steps("jobs")
    assert found
    nothing = [None] * (MAX_SILENT_STEPS + 1)
    assert found["count"] == [4, 4, 4, 7, *nothing, 1]
    assert found["in"] == [0, 0, 0, 3, *nothing, 0]  # when the six left is unknown, so no step counts them
    assert found["out"] == [0, 0, 0, 0, *nothing, 0]
    clock.pass_steps(3)
    kept.add_answer("pop", "jobs", {"success": True, "message": "a"})
    clock.pass_steps()
    assert flows(kept)[1][-4:] == [None, None, None, 1]  # counted, whatever the depth


def test_the_history_ends_after_half_an_hour(clock: Clock) -> None:
    kept = History(clock=clock)
    for depth in range(2 * MAX_STEPS):
        kept.record_depth("jobs", depth)
        clock.pass_steps()
    found = kept.steps("jobs")
    assert found
    assert found["count"] == list(range(MAX_STEPS + 1, 2 * MAX_STEPS))
    clock.pass_steps(MAX_STEPS)
    assert kept.steps("jobs") is None


def test_all_processes_return_the_same_history_and_a_new_one_continues_it(clock: Clock, tmp_path: Path) -> None:
    one, two = (History(tmp_path / f"{number}.history", clock) for number in range(2))
    for number in range(3):
        two.record_depth(f"other{number}", 1)  # so that the queue has different rows
    one.add_answer("push", "jobs", {"success": True, "message": "a", "count": 1})
    clock.now += 1
    two.add_answer("push", "jobs", {"success": True, "message": "b", "count": 2})
    two.add_answer("pop", "jobs", {"success": True, "message": "a"})
    two.record_depth("jobs", 1)
    clock.pass_steps()
    again = History(tmp_path / "1.history", clock)  # instead of one that was killed
    again.add_answer("pop", "jobs", {"success": True, "message": "b"})
    again.record_depth("jobs", 0)
    clock.pass_steps()
    stories = [kept.steps("jobs") for kept in (one, again)]
    assert stories[0] == stories[1]
    assert stories[0] == {
        "at": START,
        "step": STEP_SECONDS,
        "max": [2, 1],
        "count": [1, 0],
        "in": [2, 0],
        "out": [1, 1],
    }


def test_a_watched_queue_is_recorded_however_many_there_are(clock: Clock) -> None:
    kept = History(clock=clock)
    for number in range(MAX_QUEUES):
        kept.record_depth(f"q{number}", 1)
    kept.record_depth("late", 1)
    kept.record_depth("watched", 1, watched=True)
    clock.pass_steps()
    known = {name for name in ("q0", "q1", "late", "watched") if kept.steps(name)}
    assert known == {"q1", "watched"}  # it has the place of the one that was not heard of for longest
    kept.record_depth("watched", 1)
    clock.pass_steps()
    for number in range(MAX_QUEUES):
        kept.record_depth(f"late{number}", 1)  # the others are idle, but somebody watches one
    clock.pass_steps()
    found = {name for name in ("q1", "watched", "late0", f"late{MAX_QUEUES - 1}") if kept.steps(name)}
    assert found == {"watched", "late0"}


def test_a_queue_that_is_used_is_recorded_however_many_are_listed(clock: Clock) -> None:
    kept = History(clock=clock)
    for number in range(2 * MAX_QUEUES):
        kept.record_listed(f"listed{number}", 1)
    kept.add_answer("pop", "used", {"success": True, "message": "a"})
    kept.record_listed("used", 5)
    clock.pass_steps()
    found = kept.steps("used")
    assert found and found["out"] == [1]
    assert kept.steps("listed0")


@pytest.fixture
def noted(named_api: Api, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Any]]:
    """The history that the app's answers make; it ends the step."""
    services = named_api.app.extensions["queue"]
    services.history = History(clock=clock)

    def end_step() -> dict[str, Any]:
        clock.pass_steps()
        found: dict[str, Any] = services.history.steps("jobs")
        return {key: found[key][-1] for key in ("max", "count", "in", "out")}

    return end_step


def test_the_answers_of_the_app_are_recorded(named_api: Api, noted: Callable[[], dict[str, Any]]) -> None:
    api = named_api
    push(api, "a", "b", "c", "d")
    api.post("push", b'"e"\n"f"\n', NDJSON)
    for _ in range(2):  # the second has the answer of the first, and changes nothing
        api.post("push", b"g", TEXT, headers={"Idempotency-Key": "key"})
    api.post("push?delay=100", b"later", TEXT)
    api.post("pop")
    api.post("reserve?max=2")
    api.get("count")
    assert noted() == {"max": 7, "count": 4, "in": 7, "out": 3}
    api.client.lpush(api.key, "x")  # another client
    api.http.get("/metrics")
    assert noted() == {"max": 5, "count": 5, "in": 1, "out": 0}
    api.post("pop?max=10")
    api.post("pop")  # empty
    assert noted() == {"max": 5, "count": 0, "in": 0, "out": 5}


def test_a_queue_that_another_process_began_to_record_at_the_end_of_a_step_is_not_missed(
    clock: Clock, tmp_path: Path
) -> None:
    one, two = (History(tmp_path / f"{number}.history", clock) for number in range(2))
    clock.now += STEP_SECONDS - 0.2
    one.record_depth("jobs", 3)
    assert one.steps("other") is None  # it has looked which queues the other process records
    clock.now += 0.1
    two.record_depth("jobs", 5)
    clock.now += 0.2
    for kept in (one, two):
        steps = kept.steps("jobs")
        assert steps and (steps["count"], steps["in"]) == ([5], [2])
