"""The examples of client/python/README.md, each run as a program."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from seequeue import Queue

from tests.client.helpers import dead, facts
from tests.servers import ROOT, App, until

README = (ROOT / "client/python/README.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^## \d\. ([\w ]+)\n\n```python\n(.*?)```", README, re.M | re.S))

pytestmark = pytest.mark.slow

Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def mails(site: App) -> Iterator[Queue]:
    """The queue of the examples, empty."""
    queue = Queue("mails", url=site.url)
    for name in ("mails", "mails.dead", "newsletters", "sums"):
        Queue(name, url=site.url).clear()
    yield queue
    queue.settle([str(one.id) for one in queue.delayed()])


@pytest.fixture
def example(site: App) -> Iterator[Start]:
    """Start an example: example("A worker")."""
    started: list[subprocess.Popen[str]] = []

    def start(title: str) -> "subprocess.Popen[str]":
        env = {**os.environ, "SEEQUEUE_URL": site.url, "PYTHONPATH": str(ROOT / "client/python")}
        command = [sys.executable, "-c", EXAMPLES[title]]
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def output(process: "subprocess.Popen[str]") -> str:
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    return out


def test_the_readme_has_five_examples() -> None:
    assert [*EXAMPLES] == ["Push and pop", "A worker", "A loop", "Results", "asyncio"]


def test_push_and_pop(mails: Queue, example: Start) -> None:
    assert output(example("Push and pop")) == "10001 {'to': 'ada@example.org'}\n"
    assert facts(mails)[::2] == (10_000, 1)


def test_the_worker(mails: Queue, example: Start) -> None:
    mails.push_many([{"to": "ada@example.org"}, {"to": "nobody"}, "no mail"])
    process = example("A worker")
    until(lambda: facts(mails) == (0, 0, 0, 2))
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (out, process.returncode) == ("to ada@example.org\n", 0)
    reasons = [
        (b'{"to":"nobody"}', 1, "Reject: not an address"),
        (b"no mail", 1, "BadMessage: The message is not JSON"),
    ]
    assert [(message, tries, str(why).partition(": Exp")[0]) for message, tries, why in dead(mails)] == reasons


def test_the_loop(mails: Queue, example: Start) -> None:
    mails.push("a")
    Queue("newsletters", url=mails.url).push("b")
    assert output(example("A loop")) == "mails a 1\nnewsletters b 1\n"
    assert facts(mails) == (0, 0, 0, 0)


def test_the_results(mails: Queue, example: Start) -> None:
    assert output(example("Results")) == "6\n"


def test_the_worker_of_asyncio(mails: Queue, example: Start) -> None:
    process = example("asyncio")
    assert process.stdout
    assert process.stdout.readline() == "sent hello\n"
    process.send_signal(signal.SIGTERM)
    assert output(process) == ""
    assert facts(mails) == (0, 0, 0, 0)
