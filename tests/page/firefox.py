"""Drives the system's Firefox over WebDriver BiDi (https://w3c.github.io/webdriver-bidi) without another program."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.servers import until

ANSWER_TIMEOUT = 60  # seconds
KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Tab": "\ue004"}
MAIN_BUTTON = 0  # of the mouse


class Firefox:
    """One window of a Firefox."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.faults: list[str] = []  # the errors of the pages' scripts
        self.last_id = 0
        self.send("session.new", capabilities={})
        self.send("session.subscribe", events=["log.entryAdded"])
        self.window = self.send("browsingContext.getTree")["contexts"][0]["context"]

    def send(self, method: str, **params: Any) -> Any:
        """Send a command and return its result."""
        self.last_id += 1
        self.socket.send(json.dumps({"id": self.last_id, "method": method, "params": params}))
        while True:
            received = json.loads(self.socket.recv(timeout=ANSWER_TIMEOUT))
            if received.get("method") == "log.entryAdded" and received["params"]["level"] == "error":
                self.faults.append(received["params"]["text"])
            if received.get("id") == self.last_id:
                assert received["type"] == "success", received
                return received["result"]

    def open(self, url: str, width: int = 1280, height: int = 800) -> None:
        self.send("browsingContext.setViewport", context=self.window, viewport={"width": width, "height": height})
        self.send("browsingContext.navigate", context=self.window, url=url, wait="complete")

    def run(self, expression: str) -> Any:
        """Return the JSON value of an expression, or of the result of its promise."""
        wrapped = f"(async () => JSON.stringify(await ({expression})))()"
        answer = self.send("script.evaluate", expression=wrapped, target={"context": self.window}, awaitPromise=True)
        assert answer["type"] == "success", answer
        return json.loads(answer["result"].get("value", "null"))

    def wait(self, expression: str) -> None:
        """Wait until an expression is true."""
        until(lambda: self.run(expression) is True)

    def text(self, selector: str) -> list[str]:
        """Return the texts of all elements that match a selector."""
        return list(self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.textContent)"))

    def click(self, selector: str) -> None:
        """Click on an element with the mouse."""
        found = json.dumps(selector)
        self.run(f"document.querySelector({found}).scrollIntoView({{ block: 'nearest' }})")
        x, y = self.run(
            "(({ left, top, width, height }) => [left + width / 2, top + height / 2].map(Math.round))"
            f"(document.querySelector({found}).getBoundingClientRect())"
        )
        press = [{"type": kind, "button": MAIN_BUTTON} for kind in ("pointerDown", "pointerUp")]
        self._perform("pointer", [{"type": "pointerMove", "x": x, "y": y}, *press])

    def type(self, *keys: str) -> None:
        """Press keys: characters, or names of KEYS."""
        values = [KEYS.get(key, key) for key in keys]
        self._perform("key", [{"type": kind, "value": value} for value in values for kind in ("keyDown", "keyUp")])

    def _perform(self, kind: str, actions: list[dict[str, Any]]) -> None:
        source = {"type": kind, "id": kind, "actions": actions}
        self.send("input.performActions", context=self.window, actions=[source])


@contextmanager
def firefox(path: str, profile: Path) -> Iterator[Firefox]:
    """Run a headless Firefox with a new profile."""
    # The contrast of moving elements cannot be measured.
    (profile / "user.js").write_text('user_pref("ui.prefersReducedMotion", 1);')
    with (profile / "log").open("w") as log:
        arguments = ["--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"]
        process = subprocess.Popen([path, *arguments], stdout=log, stderr=log)
    try:
        with connect(address_of(profile / "log") + "/session", max_size=None) as socket:
            yield Firefox(socket)
    finally:
        process.terminate()
        process.wait(30)


def address_of(log: Path) -> str:
    """Wait until Firefox has logged the address on which it listens."""
    pattern = re.compile(r"WebDriver BiDi listening on (ws://\S+)")
    return str(until(lambda: pattern.search(log.read_text()), seconds=60)[1])
