"""Workers of the npm package as processes: a server that restarts, a kill, and the examples of the README."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.connections.connection import connect
from broker.queue import ReliableQueue
from tests.npm import NODES, Project, environment
from tests.servers import ROOT, App, Store, running, until

pytestmark = pytest.mark.slow

EXAMPLES = re.findall(r"^```js\n(.*?)^```$", (ROOT / "client/js/README.md").read_text(), re.M | re.S)
WORKER = """
import { QueueClient } from "seequeue";
const [name, options] = [process.argv[2], JSON.parse(process.argv[3])];
await new QueueClient(name).work(
  (message) => {
    console.log(message.text, message.deliveries);
    return message.text === "endless" ? new Promise(() => {}) : null;
  },
  { lease: 1, ...options },
);
"""


@pytest.fixture(scope="module")
def app(valkey: Store, folder: Path) -> Iterator[App]:
    """An app for these tests alone, as one restarts it and the examples name their queues."""
    url = valkey.url.removesuffix("/0") + "/2"
    with running(App(folder / "npm", REDIS_URL=url, WEB_CONCURRENCY="1")) as started:
        yield started


@pytest.fixture
def store(app: App) -> Any:
    """A client of that app's database."""
    client = connect(app.env["REDIS_URL"])
    client.flushdb()
    return client


@contextmanager
def program(project: Project, app: App, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program of the project, which is killed at the end of the `with` block."""
    command = [NODES["node"], *arguments]
    env = environment(SEEQUEUE_URL=app.url)
    output: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=project.folder, env=env, **output) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def worker(project: Project, app: App, name: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    (project.folder / "worker.mjs").write_text(WORKER)
    with program(project, app, "worker.mjs", name, json.dumps(options)) as process:
        yield process


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().rstrip("\n")


def ended(process: subprocess.Popen[str]) -> tuple[str, int]:
    """Wait for the end of a process, and return its warnings and its status."""
    _, warnings = process.communicate(timeout=60)
    return warnings, process.returncode


def test_a_worker_survives_a_restart_of_the_server_with_one_warning(
    project: Project, app: App, store: Any, name: str
) -> None:
    queue = ReliableQueue(store, name)
    with worker(project, app, name) as process:
        queue.push(b"before")
        assert next_line(process) == "before 1"
        until(lambda: not queue.state().counts.reserved)
        app.end(signal.SIGKILL)
        queue.push(b"after")
        app.start()
        assert next_line(process) == "after 1"
        until(lambda: not queue.state().counts.reserved)
        process.kill()
        warnings, _ = ended(process)
    assert re.fullmatch(r"The server is not available; trying again\. QueueError: .*\n", warnings)


def test_the_message_of_a_worker_that_is_killed_comes_back(project: Project, app: App, store: Any, name: str) -> None:
    ReliableQueue(store, name).push(b"endless")
    with worker(project, app, name) as process:
        assert next_line(process) == "endless 1"
        process.kill()
    with worker(project, app, name) as process:
        assert next_line(process) == "endless 2"


EXPECTED: list[tuple[dict[str, list[str]], list[str]]] = [
    ({}, ["hello", """[ '{"n":1}', '{"n":2}' ]"""]),
    ({"mails": ['{"to": "nobody"}', '{"to": "ana@example.com"}']}, ["sending to ana@example.com"]),
    (
        {"newsletter": ["news"], "urgent": ["busy", "spam"]},
        ["urgent: busy, urgent: spam", "rejected spam", "newsletter: news"],
    ),
    ({}, ["6"]),
    ({}, [r"1 waiting \[ 'order 17' \]"]),  # 0 waiting before, unless the push was faster than the stream
]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_each_example_of_the_readme_runs(project: Project, app: App, store: Any, number: int) -> None:
    messages, lines = EXPECTED[number]
    for name, texts in messages.items():
        ReliableQueue(store, name).push(*(text.encode() for text in texts))
    (project.folder / "example.mjs").write_text(EXAMPLES[number])
    with program(project, app, "example.mjs") as process:
        left = [*lines]  # in any order, as a hook prints once the server has answered
        while left:
            printed = next_line(process)
            assert printed, left
            left = [line for line in left if line != printed and not re.fullmatch(line, printed)]
        if "SIGTERM" in EXAMPLES[number]:
            process.send_signal(signal.SIGTERM)
        assert ended(process)[1] == 0
