"""Run the programs of docs/recipes.md and docs/moving.md, and let consumers meet what they have to survive."""

import contextlib
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.console import at, blocks
from tests.servers import ROOT, App, until


def sections(document: str) -> dict[str, str]:
    """Return the sections of a document, by the names of their tests without "test_"."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return {re.sub(r"\W+", "_", title.lower()): section for title, section in found}


class Recipe:
    """A recipe: its section, the app it calls, and the folder it runs in."""

    def __init__(self, app: App, folder: Path, section: str) -> None:
        self.app, self.folder, self.section = app, folder, section

    def program(self, kind: str, number: int = 0) -> list[str]:
        """Return the command that runs one of the programs in the section."""
        text = at(blocks(self.section, kind)[number], self.app)
        text = text.replace("redis://localhost:6379/0", f"unix://{self.app.folder}/valkey.sock")
        return ["bash", "-c", text] if kind == "sh" else [sys.executable, "-c", text]

    def run(self, kind: str, number: int = 0) -> str:
        """Run a program to its end and return its output."""
        return self.output(self.program(kind, number))

    def output(self, command: list[str]) -> str:
        options: dict[str, Any] = {"cwd": self.folder, "env": self.env(), "text": True, "timeout": 60}
        return str(subprocess.run(command, check=True, stdout=subprocess.PIPE, **options).stdout)

    @contextlib.contextmanager
    def running(self, command: list[str]) -> Iterator[subprocess.Popen[str]]:
        """Run an endless program while the `with` block runs."""
        options: dict[str, Any] = {"cwd": self.folder, "env": self.env(), "text": True, "start_new_session": True}
        with subprocess.Popen(command, stdout=subprocess.PIPE, **options) as process:
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def env(self) -> dict[str, str]:
        client = str(ROOT / "client/python")
        return {**os.environ, "PYTHONPATH": f"{self.folder}:{client}", "SEEQUEUE_URL": self.app.url}

    def get(self, path: str) -> Any:
        return ask(f"{self.app.url}/api/queue/{path}")

    def post(self, path: str, **fields: str) -> Any:
        return ask(f"{self.app.url}/api/queue/{path}", fields)

    def push(self, queue: str, message: str) -> None:
        self.post(f"{queue}/push", message=message)

    def is_done(self, queue: str) -> bool:
        """Return whether a queue is empty, including what is reserved, delayed or dead."""
        found = self.get(f"{queue}/count")
        return not (found["count"] or found["reserved"] or found["delayed"] or found["dead"])

    def restart(self, meanwhile: Callable[[], None]) -> None:
        """Kill all processes of the app, do something, and start it again."""
        os.killpg(self.app.process.pid, signal.SIGKILL)
        self.app.process.wait()
        meanwhile()
        self.app.start()

    def outlasts(self, process: subprocess.Popen[str], queue: str, message: Callable[[str], str], wrong: str) -> None:
        """Check a consumer that fetches the URL of each message, which `message` makes.

        It meets a restart of the server while it works, an ack that comes too late, and `wrong`, a
        message that is none of its own.
        """
        with Pages() as pages:

            def begin(name: str) -> Callable[[], None]:
                self.push(queue, message(f"{pages.url}/{name}"))
                until(lambda: pages.requests[f"/{name}"])
                return pages.answer

            finish = begin("restart")
            self.restart(meanwhile=finish)
            until(lambda: self.is_done(queue))
            finish = begin("late")
            [held] = self.get(f"{queue}/reserved")["messages"]
            self.post(f"{queue}/release", id=held["id"], delay="60")
            finish()
            self.push(queue, wrong)
            begin("after")()
            assert until(lambda: self.failed(queue, {held["message"], wrong}))[wrong]
            assert pages.requests == {"/restart": 1, "/late": 1, "/after": 1}
            assert process.poll() is None

    def failed(self, queue: str, messages: set[str]) -> dict[str, str]:
        """Return why messages failed, once those and no others are left, delayed or dead; {} before."""
        left = [*self.get(f"{queue}/delayed")["messages"], *self.get(f"{queue}.dead/all?details=1")["messages"]]
        counts = self.get(f"{queue}/count")
        is_over = {one["message"] for one in left} == messages and not counts["count"] + counts["reserved"]
        return {one["message"]: one.get("reason", "") for one in left} if is_over else {}

    def checked(self, url: str, *, in_form: bool = False) -> Any:
        """Give an app that checks links the URL of a page, and return what it says of it."""
        with Pages() as pages:
            pages.answer()
            fields = {"url": f"{pages.url}/page"}
            path = "" if in_form else f"?{urllib.parse.urlencode(fields)}"
            job = until(lambda: ask(url + path, fields if in_form else {}))["job"]
            return until(lambda: ask(f"{url}/{job}"))


def ask(url: str, fields: dict[str, str] | None = None) -> Any:
    """Return the JSON answer of a URL to a GET, or to a POST of fields; None if nothing listens there yet."""
    body = None if fields is None else urllib.parse.urlencode(fields).encode()
    try:
        with urllib.request.urlopen(url, body, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError:
        raise
    except urllib.error.URLError:
        return None


class Pages(http.server.ThreadingHTTPServer):
    """A web server whose pages come when the test says so."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.may_answer = threading.Semaphore(0)
        super().__init__(("127.0.0.1", 0), Page)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> "Pages":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def answer(self) -> None:
        """Let one page come."""
        self.may_answer.release()


class Page(http.server.BaseHTTPRequestHandler):
    server: Pages

    def do_GET(self) -> None:
        self.server.requests[self.path] += 1
        self.server.may_answer.acquire()
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        """Print nothing."""
