"""gunicorn.conf.py: what it imports, and signals that test_restart.py does not cover."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from tests.servers import ROOT, App, Store, until


def request(app: App, operation: str, data: bytes | None = None) -> dict[str, Any]:
    with urllib.request.urlopen(f"{app.url}/api/queue/{operation}", data) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def test_the_master_imports_nothing_that_the_app_uses() -> None:
    """gevent must patch the standard library in a worker before the app's modules import it."""
    code = "import runpy, sys; runpy.run_path('gunicorn.conf.py'); import server.worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"gevent", "server.hooks", "settings"} <= set(done.stdout.split())
    assert not {"app", "web", "redis", "flask", "werkzeug", "prometheus_client"} & set(done.stdout.split())


@pytest.mark.slow
def test_ctrl_c_answers_waiting_clients_and_prints_no_traceback(serve: Callable[..., App]) -> None:
    app = serve()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(request, app, "pop?wait=60", b"")
        until(lambda: request(app, "count")["waiters"] == 1)
        os.killpg(app.process.pid, signal.SIGINT)  # as a terminal does, to the master and its workers
        assert waiting.result()["error"] == "empty"
    assert app.process.wait() == 0
    assert "Traceback" not in app.log.read_text()


@pytest.mark.slow
def test_a_starting_worker_obeys_sigterm(serve: Callable[..., App], valkey: Store) -> None:
    app = serve(REDIS_URL=valkey.url, WEB_CONCURRENCY="1")
    for _ in range(5):  # a lost signal is seen in every second round
        [old] = until(app.workers)
        os.kill(old, signal.SIGKILL)
        [young] = until(partial(others, app, old))
        os.kill(young, signal.SIGTERM)
        until(partial(others, app, young))


def others(app: App, worker: int) -> set[int]:
    """Return the other workers once a worker has ended, until then an empty set."""
    found = set(app.workers())
    return set() if worker in found else found
