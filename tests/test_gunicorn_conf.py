import json
import os
import signal
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.servers import App, until


def ask(app: App, verb: str, data: bytes | None = None) -> dict[str, Any]:
    with urllib.request.urlopen(f"{app.url}/api/queue/{verb}", data) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def test_ctrl_c_answers_who_waits_and_prints_no_traceback(serve: Callable[..., App]) -> None:
    app = serve()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(ask, app, "pop?wait=60", b"")
        until(lambda: ask(app, "count")["waiters"] == 1)
        os.killpg(app.process.pid, signal.SIGINT)  # as a terminal does: to the master, the workers and all
        assert waiting.result()["error"] == "empty"
    assert app.process.wait() == 0
    assert "Traceback" not in app.log.read_text()


def test_what_waited_when_it_was_stopped_still_waits_after_a_start(serve: Callable[..., App]) -> None:
    app = serve()
    ask(app, "push", b"message=kept")
    app.end()
    app.start()
    assert ask(app, "all")["messages"] == ["kept"]
