"""`seequeue tail`, `queues` on a terminal and `watch`: they follow what happens."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from seequeue import Queue
from seequeue.command.following import Back, news
from seequeue.command.watching import Watched
from seequeue.core.messages import Listed
from seequeue.core.models import Counts

from tests.client.commands import COMMAND, environment, start
from tests.servers import App, until

Started = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    """Start the command with its output in tmp_path / "log", and end it by Ctrl-C, quietly."""
    processes = []

    def run(url: str, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        processes.append(start(url, *arguments, log=tmp_path / "log", **options))
        return processes[-1]

    yield run
    for process in processes:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert "Traceback" not in (tmp_path / "log").read_text()


def lines(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().split("\n")[:-1]


def listed(text: str) -> list[Listed]:
    return [Listed(one.encode()) for one in text]


@pytest.mark.parametrize(
    ("known", "window", "growth", "expected"),
    [
        ("abc", "abcd", 1, "d"),
        ("abc", "bcde", 1, "de"),  # one was popped
        ("aa", "aaa", 1, "a"),
        ("ab", "xab", 1, ""),  # one was put in front
        ("abc", "c", -2, ""),
        ("abc", "de", -1, None),
        ("", "ab", 2, None),
    ],
)
def test_new_messages_are_those_behind_the_known_ones(
    known: str, window: str, growth: int, expected: str | None
) -> None:
    found = news(listed(known), listed(window), growth)
    assert found == (None if expected is None else listed(expected))


def test_a_look_reads_as_far_back_as_needed(queue: Queue) -> None:
    back = Back(queue)
    queue.push_many([str(number) for number in range(2000)])
    assert len(back.look(2000, 1000)) == 1000
    queue.push_many([str(number) for number in range(2000, 5000)])
    assert back.look(2000) == [b"%d" % number for number in range(2000, 5000)]
    queue.pop(max=900)
    queue.push("new")
    assert back.look(queue.count().count) == [b"new"]
    queue.clear()
    assert back.look(0) == []
    queue.push("new")
    assert back.look(1) == [b"new"]


@pytest.mark.slow
def test_tail_prints_what_joins_the_queue(serve: Callable[..., App], started: Started, tmp_path: Path) -> None:
    app = serve(WEB_CONCURRENCY="1")
    with Queue("jobs", url=app.url) as queue:
        queue.push_many(["old", "older\n", "newest"])
        started(app.url, "tail", "jobs", "-n", "2", "--json")
        until(lambda: len(lines(tmp_path)) == 2)
        queue.push("next", front=True)
        queue.push("joins")
        until(lambda: len(lines(tmp_path)) == 3)
        app.end(signal.SIGKILL)
        app.start()
        queue.push("after the restart")
        until(lambda: "after the restart" in lines(tmp_path)[-1])
        printed = [json.loads(line)["message"] for line in lines(tmp_path) if line.startswith("{")]
        assert printed == ["older\n", "newest", "joins", "after the restart"]


@pytest.mark.slow
def test_queues_is_a_live_table_on_a_terminal(site: App, queue: Queue, name: str) -> None:
    queue.push("a")
    ours, theirs = pty.openpty()
    command = [*COMMAND, "queues", name]
    process = subprocess.Popen(command, env=environment(site.url), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""

    def shows(waiting: int) -> bool:
        nonlocal shown
        shown += os.read(ours, 1 << 16)
        last = shown.rpartition(b"\x1b[H")[2].decode().split()
        return name in last and last[last.index(name) + 1 :][:1] == [str(waiting)]

    until(lambda: shows(1))
    queue.push("b")
    until(lambda: shows(2))
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    os.close(ours)


def counts(count: int = 0, **more: Any) -> Counts:
    return Counts(**{"count": count, "reserved": 0, "delayed": 0, "dead": 0, "waiters": 0, "paused": False, **more})


def test_a_queue_is_reported_when_something_begins_and_once() -> None:
    watched, steps = (
        Watched(),
        [
            (0, counts(5), []),
            (59, None, []),
            (60, None, ["unattended"]),
            (99, counts(6), []),
            (100, counts(5), []),  # somebody took one
            (160, None, ["unattended"]),
            (161, counts(4, reserved=1), []),
            (300, counts(4, reserved=1, dead=2), ["dead"]),
            (301, counts(4, dead=2, paused=True), ["paused"]),
            (900, counts(4, dead=2, paused=True), []),
            (901, counts(0, reserved=1, dead=1), []),
            (902, counts(0, dead=1), ["empty"]),
            (999, counts(0, dead=2), ["dead"]),
        ],
    )
    for now, seen, expected in steps:
        if seen:
            watched.see(seen, now)
        assert [event for event, _ in watched.events(now, 60)] == expected, now


@pytest.mark.slow
def test_watch_prints_posts_and_runs_a_program(serve: Callable[..., App], started: Started, tmp_path: Path) -> None:
    app = serve(WEB_CONCURRENCY="1")
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\necho "$SEEQUEUE_QUEUE $SEEQUEUE_EVENT $(cat)" >> {tmp_path}/ran\n')
    program.chmod(0o755)
    hook = f"{app.url}/api/queue/events/push?raw=1"
    started(app.url, "watch", "jobs", "--after", "0.2", "--json", "--post", hook, "--exec", str(program))
    with Queue("jobs", url=app.url) as queue, Queue("events", url=app.url) as events:
        queue.push("a")
        until(lambda: len(lines(tmp_path)) == 1)
        taken = queue.reserve()
        assert taken
        taken.reject("gone")
        until(lambda: len(lines(tmp_path)) == 3)
        printed = [json.loads(line) for line in lines(tmp_path)]
        assert [one["event"] for one in printed[:1]] == ["unattended"]
        assert {one["event"] for one in printed[1:]} == {"dead", "empty"}
        assert printed[0]["text"] == "jobs: nobody takes its messages (1 waiting)."
        until(lambda: events.count().count == 3)
        assert [one.json() for one in events.all()] == printed
        ran = until(lambda: (tmp_path / "ran").read_text().splitlines())
        assert ran[0] == f"jobs unattended {json.dumps(printed[0], separators=(',', ':'))}"
