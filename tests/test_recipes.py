"""docs/recipes.md: each recipe is run by the test that is named after its section."""

import contextlib
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.console import at, blocks, check, need
from tests.npm import NODES, Project
from tests.servers import ROOT, App, running, until

DOCUMENT = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
SECTIONS = {  # by the name of the test without "test_"
    re.sub(r"\W", "_", title.lower()): text
    for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", DOCUMENT, re.M | re.S)
}
pytestmark = pytest.mark.slow


class Recipe:
    """A recipe: its section, the app it calls, and the folder it runs in."""

    def __init__(self, app: App, folder: Path, section: str) -> None:
        self.app, self.folder, self.section = app, folder, section
        module = blocks(SECTIONS["python_with_the_standard_library_only"], "python")[0]
        (folder / "queues.py").write_text(at(module, app))

    def program(self, kind: str, number: int = 0) -> list[str]:
        """Return the command that runs one of the programs in the section."""
        text = at(blocks(self.section, kind)[number], self.app)
        text = text.replace("redis://localhost:6379/0", f"unix://{self.app.folder}/valkey.sock")
        return ["bash", "-c", text] if kind == "sh" else [sys.executable, "-c", text]

    def run(self, kind: str, number: int = 0) -> str:
        """Run a program to its end and return its output."""
        options: dict[str, Any] = {"cwd": self.folder, "env": self.env(), "text": True, "timeout": 60}
        done = subprocess.run(self.program(kind, number), check=True, stdout=subprocess.PIPE, **options)
        return str(done.stdout)

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
        return {**os.environ, "PYTHONPATH": f"{self.folder}:{ROOT}"}

    def get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.app.url}/api/queue/{path}", timeout=20) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def push(self, queue: str, message: str) -> None:
        body = json.dumps({"message": message}).encode()
        request = urllib.request.Request(
            f"{self.app.url}/api/queue/{queue}/push", body, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=20).close()

    def is_done(self, queue: str) -> bool:
        """Return whether a queue is empty, including what is reserved, delayed or dead."""
        found = self.get(f"{queue}/count")
        return not (found["count"] or found["reserved"] or found["delayed"] or found["dead"])


def settings_of(section: str) -> dict[str, str]:
    """Return the settings that a section gives to `make run`, without Redis and the port."""
    (line,) = (block for block in blocks(SECTIONS[section], "sh") if "make run" in block)
    return {name: value for name, value in re.findall(r"(\w+)=(\S*)", line) if name not in ("REDIS_URL", "PORT")}


@pytest.fixture(scope="module")
def first(folder: Path) -> Iterator[App]:
    """The app that all recipes call, on an embedded server. Its default queue is the one of the first version."""
    with running(App(folder / "recipes", WEB_CONCURRENCY="1", **settings_of("from_the_first_version"))) as app:
        yield app


@pytest.fixture(scope="module")
def shop(first: App) -> Iterator[App]:
    """A second app on the same server, with another prefix."""
    settings = settings_of("an_existing_list")
    assert settings == settings_of("two_instances_on_one_redis")
    url = f"unix://{first.folder}/valkey.sock"
    with running(App(first.folder / "shop", WEB_CONCURRENCY="1", REDIS_URL=url, **settings)) as app:
        yield app


@pytest.fixture
def recipe(first: App, tmp_path: Path, request: pytest.FixtureRequest) -> Recipe:
    need("curl")
    return Recipe(first, tmp_path, SECTIONS[request.node.name.removeprefix("test_")])


def test_each_recipe_has_a_test() -> None:
    tests = [name.removeprefix("test_") for name in globals() if name.startswith("test_")]
    assert tests == ["each_recipe_has_a_test", *SECTIONS]


def test_bash_with_curl_only(recipe: Recipe) -> None:
    for number in (1, 3):
        (recipe.folder / f"page-{number}.txt").write_text("text")
    recipe.run("sh")
    recipe.run("sh")  # the same keys: nothing is pushed twice
    assert recipe.get("files/all")["messages"] == ["page-1.txt", "page-2.txt", "page-3.txt"]
    with recipe.running(recipe.program("sh", 1)):
        until(lambda: (recipe.folder / "page-3.txt.gz").exists())
        until(lambda: recipe.get("files/count")["reserved"] == 0)
    (failed,) = recipe.get("files/delayed")["messages"]
    assert (failed["message"], failed["reason"]) == ("page-2.txt", "gzip failed")


def test_python_with_the_standard_library_only(recipe: Recipe) -> None:
    recipe.run("python", 1)
    with recipe.running(recipe.program("python", 2)) as consumer:
        assert consumer.stdout
        assert consumer.stdout.readline() == "sending to ana@example.com\n"
        until(lambda: recipe.is_done("mail"))


def test_javascript_in_node(recipe: Recipe, project: Project) -> None:
    (project.folder / "photos.mjs").write_text(blocks(recipe.section, "js")[0])
    command = ["env", f"SEEQUEUE_URL={recipe.app.url}", NODES["node"], str(project.folder / "photos.mjs")]
    with recipe.running(command) as consumer:
        assert consumer.stdout
        assert consumer.stdout.readline() == "resizing cat.png\n"
        recipe.push("photos", "not JSON")
        until(lambda: recipe.get("photos/count")["dead"])
        consumer.send_signal(signal.SIGTERM)
        assert consumer.wait(60) == 0
    (failed,) = recipe.get("photos.dead/all?details=1")["messages"]
    assert failed["reason"].startswith("Reject: The message is not JSON")
    assert recipe.get("photos/count")["reserved"] == 0


def test_delays(recipe: Recipe) -> None:
    check(recipe.section, recipe.app, recipe.folder)


def test_priorities(recipe: Recipe) -> None:
    check(recipe.section, recipe.app, recipe.folder)


def test_retry_with_backoff(recipe: Recipe) -> None:
    recipe.push("fetch", "http://127.0.0.1:1/")
    recipe.push("fetch", f"{recipe.app.url}/healthz")
    with recipe.running(recipe.program("python")) as consumer:
        (failed,) = until(lambda: recipe.get("fetch/delayed")["messages"])
        assert consumer.stdout
        assert consumer.stdout.readline().startswith(f"{recipe.app.url}/healthz ")
        until(lambda: recipe.get("fetch/reserved")["count"] == 0)
    assert failed["reason"].startswith("URLError(")
    assert failed["deliveries"] == 1


def test_dead_letters(recipe: Recipe) -> None:
    check(recipe.section, recipe.app, recipe.folder)


def test_limits(recipe: Recipe) -> None:
    check(recipe.section, recipe.app, recipe.folder)


def test_results(recipe: Recipe) -> None:
    with recipe.running(recipe.program("python", 1)):
        assert recipe.run("python") == "6\n"
    assert recipe.is_done("sums")


def test_cron(recipe: Recipe) -> None:
    (line,) = blocks(recipe.section, "crontab")
    command = at(re.sub(r"^(\S+ ){5}", "", line).replace(r"\%", "%"), recipe.app)
    for _ in range(2):
        subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.DEVNULL, timeout=60)
    assert len(recipe.get("reports/all")["messages"]) in (1, 2)  # 2 if it was midnight in between


def test_a_webhook(recipe: Recipe) -> None:
    received: list[bytes] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(500 if received[-1] == b"refused" else 204)
            self.end_headers()

    with http.server.HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for message in ("refused", '{"n":1}'):
            recipe.push("hooks", message)
        command = recipe.program("sh")
        command[-1] = command[-1].replace("https://example.com", f"http://127.0.0.1:{server.server_port}")
        with recipe.running(command):
            (delayed,) = until(lambda: recipe.get("hooks/delayed")["messages"])
            until(lambda: len(received) == 2)
        server.shutdown()
    assert (delayed["message"], received) == ("refused", [b"refused", b'{"n":1}'])


def test_webhooks_to_a_queue(recipe: Recipe) -> None:
    sent = re.findall(r"^event='(.*)'$", recipe.section, re.M)
    recipe.run("sh")
    assert [recipe.get(f"{name}/all")["messages"] for name in ("github", "stripe", "events")] == [[one] for one in sent]
    assert len(sent) == 3


def test_from_sqs(recipe: Recipe) -> None:
    assert recipe.run("python") == "order 17\n"
    assert recipe.is_done("orders")


def test_from_rq(recipe: Recipe) -> None:
    with recipe.running(recipe.program("python", 1)):
        assert recipe.run("python") == "5\n"
        recipe.push("words", '{"function": "remove_everything"}')
        until(lambda: recipe.get("words/count")["dead"])
    reason = recipe.get("words.dead/all?details=1")["messages"][0]["reason"]
    assert reason == "Reject: no function remove_everything"


def test_from_the_first_version(recipe: Recipe) -> None:
    need("redis-cli")
    check(recipe.section, recipe.app, recipe.folder)


def test_an_existing_list(recipe: Recipe, shop: App) -> None:
    need("redis-cli")
    section = recipe.section.replace("instance/", f"{recipe.app.folder}/")
    check(section, shop, recipe.folder)


def test_two_instances_on_one_redis(recipe: Recipe, shop: App) -> None:
    section = recipe.section.replace("localhost:5001", f"127.0.0.1:{shop.port}")
    check(section, recipe.app, recipe.folder)


def test_backup_and_restore(recipe: Recipe) -> None:
    check(recipe.section, recipe.app, recipe.folder)
