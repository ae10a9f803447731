"""A log that cannot be written is dropped: it costs neither an answer nor a process."""

import contextlib
import json
import os
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import App, Store, until

pytestmark = pytest.mark.slow


def post(app: App, path: str) -> bytes:
    with urllib.request.urlopen(f"{app.url}/api/queue/{path}", b"", timeout=20) as answer:
        return bytes(answer.read())


def supervisors(app: App) -> list[int]:
    """Return the process ids of the supervisors of the embedded server."""
    children = Path(f"/proc/{app.process.pid}/task/{app.process.pid}/children").read_text().split()
    return sorted({int(child) for child in children} - set(app.workers()))


def fill(pipe: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x")


@pytest.mark.parametrize("kind", ["full disk", "closed", "closed pipe", "full pipe"])
def test_a_pop_is_answered_whatever_happens_to_the_request_log(
    serve: Callable[..., App], valkey: Store, name: str, tmp_path: Path, kind: str
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader, writer = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    redirect = {"full disk": ">/dev/full", "closed": ">&-"}.get(kind, f">{pipe}")
    app = serve(redirect, REDIS_URL=valkey.url, LOG_REQUESTS="1")
    if kind == "full pipe":
        fill(writer)
    else:
        os.close(reader)
    workers = app.workers()
    valkey.client().lpush(f"queue:{name}", *range(20))
    popped = [json.loads(post(app, f"{name}/pop"))["message"] for _ in range(20)]
    assert popped == [str(number) for number in range(20)]
    assert app.workers() == workers
    assert app.log.read_text().count("Cannot log_request") <= len(workers)


@pytest.mark.parametrize("kind", ["full disk", "closed", "full pipe"])
def test_the_master_outlives_its_log(serve: Callable[..., App], tmp_path: Path, kind: str) -> None:
    """It reports a bad setting, a killed supervisor and a killed worker, in vain."""
    pipe, token = tmp_path / "pipe", tmp_path / "token"
    os.mkfifo(pipe)
    os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    token.write_text("a-token-of-some-length")
    redirect = {"full disk": ">/dev/full 2>&1", "closed": ">&- 2>&-"}.get(kind, f">{pipe} 2>&1")
    app = serve(redirect, API_TOKEN_FILE=str(token))
    fill(writer)
    token.unlink()
    app.stop(signal.SIGHUP)
    [supervisor] = supervisors(app)
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: (found := supervisors(app)) and found != [supervisor])
    token.write_text("a-token-of-some-length")
    worker = app.workers()[0]
    os.kill(worker, signal.SIGKILL)
    until(lambda: len(app.workers()) == 2 and worker not in app.workers())
    until(app.answers)
