"""How gunicorn serves the app by gunicorn.conf.py: what is not tested by restarting it (test_restart.py)."""

import json
import os
import signal
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from tests.servers import App, Store, until


def request(app: App, verb: str, data: bytes | None = None) -> dict[str, Any]:
    with urllib.request.urlopen(f"{app.url}/api/queue/{verb}", data) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


@pytest.mark.slow
def test_ctrl_c_answers_waiting_clients_and_prints_no_traceback(serve: Callable[..., App]) -> None:
    app = serve()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(request, app, "pop?wait=60", b"")
        until(lambda: request(app, "count")["waiters"] == 1)
        os.killpg(app.process.pid, signal.SIGINT)  # as a terminal does: to the master and its workers
        assert waiting.result()["error"] == "empty"
    assert app.process.wait() == 0
    assert "Traceback" not in app.log.read_text()


@pytest.mark.slow
def test_a_worker_that_is_told_to_end_while_it_starts_ends(serve: Callable[..., App], valkey: Store) -> None:
    app = serve(REDIS_URL=valkey.url, WEB_CONCURRENCY="1")
    for _ in range(8):
        [old] = until(app.workers)
        os.kill(old, signal.SIGKILL)
        [young] = until(partial(others, app, old))
        os.kill(young, signal.SIGTERM)
        until(partial(others, app, young))


def others(app: App, worker: int) -> set[int]:
    """Return the workers beside one, once that has ended."""
    found = set(app.workers())
    return set() if worker in found else found
