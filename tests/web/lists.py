"""What the tests of attached lists share: an app with LISTS, a program that fills a list, and Redis's MONITOR."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from tests.servers import App, Store, until


def ask(app: App, path: str, kind: str = "application/json", **sent: Any) -> Any:
    """Return the JSON of an answer, with `status`; other kinds as text. Something to send makes it a POST."""
    body = json.dumps(sent).encode() if sent else None
    headers = {"Accept": kind, "Content-Type": "application/json"}
    request = urllib.request.Request(app.url + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read().decode()
            return json.loads(text) | {"status": 200} if kind == "application/json" else text
    except urllib.error.HTTPError as error:
        return json.loads(error.read()) | {"status": error.code}


class Follower:
    """Follows a stream of events in a thread; `last` is the data of the last one."""

    def __init__(self, app: App, path: str) -> None:
        self.events: list[dict[str, Any]] = []
        self._answer = urllib.request.urlopen(app.url + path, timeout=60)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._answer:
            if line.startswith(b"data: "):
                self.events.append(json.loads(line[6:]))

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1] if self.events else {}

    def until_count(self, count: int) -> None:
        until(lambda: self.last.get("count") == count)


@contextmanager
def monitored(store: Store) -> Iterator[list[str]]:
    """Collect the commands that a server gets in a `with` block, those of scripts with "lua " in front."""
    commands: list[str] = []
    with redis.Redis(port=store.port) as client, client.monitor() as monitor:

        def read() -> None:
            while "ECHO the end" not in commands:
                one = monitor.next_command()
                commands.append(("lua " if one["client_type"] == "lua" else "") + one["command"])

        threading.Thread(target=read, daemon=True).start()
        yield commands
        client.echo("the end")
        until(lambda: "ECHO the end" in commands)
        commands.remove("ECHO the end")
