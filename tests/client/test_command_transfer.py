"""`seequeue export | seequeue import`: a whole queue on another server, also if a server dies in the middle."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from seequeue import AsyncQueue, Queue, Refused

from tests.client.commands import COMMAND, environment, seequeue, start
from tests.client.helpers import HttpProxy
from tests.client.test_command import err, on_terminal, out
from tests.servers import App, until

pytestmark = pytest.mark.slow


def test_export_to_import_brings_a_whole_queue_to_another_server(
    serve: Callable[..., App], site: App, queue: Queue, name: str
) -> None:
    queue.push_many(["fails", "in flight", "dies", b"\xff", *map(str, range(2500))])
    fails, _, dies = queue.reserve(max=3)
    fails.release(reason="slow")
    dies.reject("gone")
    queue.push("later", delay=900)
    other = serve(WEB_CONCURRENCY="1")
    pipe = subprocess.Popen([*COMMAND, "export", name], env=environment(site.url), stdout=subprocess.PIPE)
    done = subprocess.run(
        [*COMMAND, "import", name], env=environment(other.url), stdin=pipe.stdout, capture_output=True
    )
    assert (pipe.wait(60), done.returncode, done.stdout) == (0, 0, b"2,505 imported.\n")
    with Queue(name, url=other.url) as there, Queue(name + ".dead", url=other.url) as dead:
        assert list(there.all()) == [b"in flight", b"fails", b"\xff", *(b"%d" % n for n in range(2500))]
        assert [(one, one.reason) for one in dead.all(details=True)] == [(b"dies", "gone")]
        assert [(one, one.deadline) for one in there.delayed()] == [(one, one.deadline) for one in queue.delayed()]
        assert [one.deliveries for one in there.reserve(max=3)] == [2, 2, 1]


def test_an_import_survives_lost_answers_and_stores_each_message_once(
    front: HttpProxy, flaky: Queue, queue: Queue
) -> None:
    lines = [json.dumps({"message": f"{number}"}).encode() for number in range(2500)]
    front.lose("/import", times=2)
    shown: list[tuple[int, int | None]] = []
    assert flaky.import_lines(lines, progress=lambda *done: shown.append(done)) == 2500
    assert list(queue.all()) == [b"%d" % number for number in range(2500)]
    assert shown == [(1000, 2500), (2000, 2500), (2500, 2500)]


def test_a_queue_is_exported_and_imported_under_asyncio(site: App, queue: Queue, name: str) -> None:
    async def copy() -> int:
        async with AsyncQueue(name, url=site.url) as source, AsyncQueue(name + "x", url=site.url) as target:
            return await target.import_lines(source.export())

    queue.push_many(["a", "b"])
    assert asyncio.run(copy()) == 2
    with Queue(name + "x", url=site.url) as target:
        assert list(target.all()) == [b"a", b"b"]


def test_an_import_goes_on_when_its_server_was_killed(serve: Callable[..., App], tmp_path: Path) -> None:
    app = serve(WEB_CONCURRENCY="1")
    ours, theirs = os.pipe()
    process = start(app.url, "import", "jobs", log=tmp_path / "log", stdin=ours)
    os.close(ours)
    line = b'{"message":"%s"}\n' % (b"x" * 1000)
    with Queue("jobs", url=app.url) as queue, open(theirs, "wb") as pipe:
        pipe.write(line * 3000)
        until(lambda: queue.count().count >= 1000)
        app.end(signal.SIGKILL)
        pipe.write(line * 1000)
        app.start()
        pipe.close()
        assert process.wait(60) == 0, (tmp_path / "log").read_text()
        assert queue.count().count == 4000


def test_a_line_that_is_not_valid_is_named(site: App, queue: Queue, name: str) -> None:
    lines = b'{"message":"a"}\n' * 1000 + b"\n" + b'{"message":"b","ttl":1}\n'
    assert (
        err(site.url, "import", name, sent=lines, code=1) == '1,000 imported; line 1,002: Unknown field "ttl" in line.'
    )
    assert queue.count().count == 1000
    with pytest.raises(Refused) as refused:
        queue.import_lines(lines.splitlines())
    assert (refused.value.answer["imported"], refused.value.answer["line"]) == (1000, 1002)


def test_long_work_shows_a_bar_on_a_terminal_only(site: App, queue: Queue, name: str, tmp_path: Path) -> None:
    lines, texts = tmp_path / "lines", tmp_path / "texts"
    lines.write_bytes(b'{"message":"a"}\n' * 1500)
    texts.write_bytes(b"b\n" * 1500)
    assert "100%" in on_terminal(site.url, "import", name, sent=lines)
    assert "100%" in on_terminal(site.url, "push", name, "--each-line", sent=texts)
    with open(lines, "rb") as file:
        done = subprocess.run([*COMMAND, "import", name], env=environment(site.url), stdin=file, capture_output=True)
    assert (done.stdout, done.stderr) == (b"1,500 imported.\n", b"")
    assert out(site.url, "export", name).count("\n") == 4500


def test_an_export_that_breaks_off_fails(front: HttpProxy, queue: Queue, name: str, tmp_path: Path) -> None:
    queue.push_many(["x" * 10_000] * 3000)
    process = subprocess.Popen(
        [*COMMAND, "export", name], env=environment(front.url), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout and process.stderr
    process.stdout.readline()
    front.refuse()
    process.stdout.read()
    assert b"broke in the middle" in process.stderr.read()
    assert process.wait(60) == 4
    seequeue(front.url, "export", name, "--timeout", "0.2", code=4)
