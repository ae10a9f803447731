"""Signals that reach all processes at once: `docker stop` of a group, systemd's default KillMode, Ctrl-C."""

import http.client
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.embedded.helpers import call, is_alive, server_of, supervisor_of
from tests.servers import App, until

pytestmark = pytest.mark.slow

Serve = Callable[..., App]
CLIENTS = 12


def all_processes(app: App) -> list[int]:
    """Return the process ids of the server, its supervisor, the workers and the master, in the order to signal."""
    return [server_of(app.folder), supervisor_of(app.folder), *app.workers(), app.process.pid]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_of_all_processes_at_once_answers_every_pop(serve: Serve, how: signal.Signals) -> None:
    """The server and its supervisor end after the workers, whoever gets the signal."""
    app = serve()
    messages = [str(number) for number in range(20_000)]
    for start in range(0, len(messages), 1000):
        body = json.dumps({"messages": messages[start : start + 1000]}).encode()
        assert call(app, "push", body)["success"]
    taken, lock = Counter[str](), threading.Lock()
    unexpected: list[Any] = []

    def pop_until_refused() -> None:
        while True:
            try:
                answer = call(app, "pop", b"")
            except (OSError, http.client.HTTPException):  # no worker accepts any more, or not this connection
                if app.process.poll() is not None:
                    return
                continue
            with lock:
                if answer["success"]:
                    taken[answer["message"]] += 1
                else:
                    unexpected.append(answer)

    with ThreadPoolExecutor(CLIENTS) as pool:
        futures = [pool.submit(pop_until_refused) for _ in range(CLIENTS)]
        until(lambda: len(taken) > 200)
        processes = all_processes(app)
        for process in processes:
            os.kill(process, how)
        assert app.process.wait(60) == 0
        for future in futures:
            future.result()
    assert unexpected == []
    assert not any(is_alive(process) for process in processes)
    app.start()
    rest = Counter(call(app, "all?limit=100000")["messages"])
    assert taken + rest == Counter(messages)


def test_a_hangup_of_all_processes_is_a_reload(serve: Serve) -> None:
    """A terminal that closes sends it. The old workers answer their waiting clients first."""
    app = serve()
    server, supervisor, *workers, master = all_processes(app)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, app, "pop?wait=60", b"")
        until(lambda: call(app, "count")["waiters"] == 1)
        for process in (server, supervisor, *workers, master):
            os.kill(process, signal.SIGHUP)
        assert waiting.result()["error"] == "empty"
    until(lambda: len(app.workers()) == 2 and not set(workers) & set(app.workers()))
    assert (server_of(app.folder), supervisor_of(app.folder)) == (server, supervisor)
