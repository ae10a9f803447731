"""`seequeue work` and `seequeue forward`: what becomes of a message, also when processes are killed."""

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from seequeue import Queue
from seequeue.command.working import retry_after

from tests.client.commands import seequeue, start
from tests.client.helpers import HttpProxy
from tests.client.test_command import err
from tests.servers import App, until

pytestmark = pytest.mark.slow


@pytest.fixture
def dead(site: App, name: str) -> Iterator[Queue]:
    """The dead letters of the queue."""
    with Queue(name + ".dead", url=site.url) as made:
        yield made


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the command with its output in tmp_path / "log".

    Afterwards it is killed, and so are the programs that it leaves behind, whose ids are in tmp_path / "pids".
    """
    processes = []

    def run(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        processes.append(start(*arguments, log=tmp_path / "log", **options))
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.wait()
    for pid in (tmp_path / "pids").read_text().split() if (tmp_path / "pids").exists() else []:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(pid), signal.SIGKILL)


def shell(text: str) -> list[str]:
    return ["--", "sh", "-c", text]


def until_empty(url: str, *arguments: str, program: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return seequeue(url, "work", *arguments, "--until-empty", *shell(program), **options)


def test_a_program_gets_the_message_and_its_facts(site: App, queue: Queue, name: str) -> None:
    queue.push(b"\xff\0" * 100_000)  # more than a pipe holds
    facts = "$SEEQUEUE_QUEUE $SEEQUEUE_DELIVERIES $SEEQUEUE_MAX_DELIVERIES $SEEQUEUE_URL"
    done = until_empty(
        site.url, name, program=f'wc -c; echo "{facts}"; test "$SEEQUEUE_ID" && test "$SEEQUEUE_DEADLINE"'
    )
    assert done.stdout.split() == [b"200000", *f"{name} 1 5 {site.url}".encode().split()]
    assert (queue.count().count, queue.count().reserved) == (0, 0)


def test_a_program_that_does_not_read_its_message_succeeds(site: App, queue: Queue, name: str) -> None:
    queue.push(b"x" * 1_000_000)
    until_empty(site.url, name, program="exit 0")
    assert queue.count().count == 0


@pytest.mark.parametrize(
    ("code", "options", "is_retried"),
    [(1, [], True), (75, [], True), (75, ["--reject"], True), (1, ["--reject"], False)],
)
def test_the_exit_code_decides(
    site: App, queue: Queue, dead: Queue, name: str, code: int, options: list[str], is_retried: bool
) -> None:
    queue.push("a")
    program = f"echo first >&2; echo disk full >&2; exit {code}"
    done = until_empty(site.url, name, "--retry", "900", "--json", *options, program=program)
    assert json.loads(done.stdout)["outcome"] == ("retried" if is_retried else "rejected")
    assert b"Traceback" not in done.stderr and b"first\ndisk full\n" in done.stderr
    place = queue.delayed() if is_retried else dead.all(details=True)
    assert [one.reason for one in place] == [f"{'Failed' if is_retried else 'Reject'}: exit code {code}: disk full"]


def test_a_program_that_is_killed_is_retried(site: App, queue: Queue, name: str) -> None:
    queue.push("a")
    until_empty(site.url, name, "--retry", "900", "--reject", program="kill -9 $$")
    assert [one.reason for one in queue.delayed()] == ["Failed: SIGKILL"]


def test_a_message_of_a_killed_worker_comes_back(
    site: App, queue: Queue, name: str, endless: Callable[..., Any], tmp_path: Path
) -> None:
    queue.push("a")
    begin = f'echo $$ >> {tmp_path}/pids; echo "$SEEQUEUE_DELIVERIES" >> {tmp_path}/began'
    program = shell(f'{begin}; test "$SEEQUEUE_DELIVERIES" != 1 || sleep 600')
    worker = endless(site.url, "work", name, "--lease", "3", *program)
    until((tmp_path / "began").exists)
    began = next(iter(queue.reserved())).deadline
    until(lambda: next(iter(queue.reserved())).deadline != began)  # it is renewed while the program runs
    worker.kill()
    endless(site.url, "work", name, "--lease", "3", *program)
    until(lambda: queue.count().count + queue.count().reserved == 0)
    assert (tmp_path / "began").read_text().split()[:2] == ["1", "2"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_stopped_lets_a_program_end(
    site: App, queue: Queue, name: str, endless: Callable[..., Any], tmp_path: Path, number: signal.Signals
) -> None:
    queue.push_many(["a", "b"])
    go = tmp_path / "go"
    program = shell(f"touch {tmp_path}/began; while ! test -e {go}; do sleep 0.02; done; echo done")
    worker = endless(site.url, "work", name, *program, start_new_session=True)
    until((tmp_path / "began").exists)
    os.killpg(worker.pid, number)  # as Ctrl-C does
    until(lambda: queue.count().reserved == 1 and queue.count().count == 1)
    go.touch()
    assert worker.wait(60) == 0
    assert (list(queue.all()), queue.count().reserved, queue.count().delayed) == ([b"b"], 0, 0)


def test_a_program_that_outlasts_the_grace_is_killed_and_its_message_comes_back(
    site: App, queue: Queue, name: str, endless: Callable[..., Any], tmp_path: Path
) -> None:
    queue.push("a")
    worker = endless(site.url, "work", name, "--grace", "0.1", *shell(f"echo $$ > {tmp_path}/pids; sleep 600"))
    pid = int(until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text()))
    worker.terminate()
    assert worker.wait(60) == 0
    assert list(queue.all()) == [b"a"]
    until(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


def test_work_goes_on_after_the_server_was_killed(
    serve: Callable[..., App], endless: Callable[..., Any], tmp_path: Path
) -> None:
    app = serve(WEB_CONCURRENCY="1")
    with Queue("jobs", url=app.url) as queue:
        queue.push_many([str(number) for number in range(20)])
        endless(app.url, "work", "jobs", "--concurrency", "2", *shell(f"cat >> {tmp_path}/did; sleep 0.05"))
        until(lambda: queue.count().count <= 15)
        app.end(signal.SIGKILL)
        app.start()
        queue.push("after")
        until(lambda: "after" in (tmp_path / "did").read_text())
        until(lambda: queue.count().count + queue.count().reserved == 0)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_program_that_does_not_exist_takes_no_message(site: App, queue: Queue, name: str) -> None:
    queue.push("a")
    assert "no program" in err(site.url, "work", name, "--", "no-such-program", code=2)
    assert "Name a program" in err(site.url, "work", name, code=2)
    assert queue.count().count == 1


# --- forward


class Service(ThreadingHTTPServer):
    """A web service that gives planned answers, and remembers what it got."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plans: list[tuple[int, dict[str, str]]] = []
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        self.server.got.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
        status, headers = self.server.plans.pop(0) if self.server.plans else (204, {})
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def forward(site: App, name: str, url: str, *options: str) -> list[str]:
    """Forward until the queue is empty; return what became of the messages."""
    done = seequeue(site.url, "forward", name, url, "--until-empty", "--json", "--retry", "900", *options)
    assert b"Traceback" not in done.stderr
    return [json.loads(line)["outcome"] for line in done.stdout.splitlines()]


def test_a_message_is_posted_with_its_facts(site: App, queue: Queue, name: str, service: Service) -> None:
    for message in (b'{"a":1}', b"text", b"\xff"):
        queue.push(message)
    assert forward(site, name, service.url, "-H", "Authorization: Bearer x") == ["done"] * 3
    assert [body for _, body in service.got] == [b'{"a":1}', b"text", b"\xff"]
    kinds = ["application/json", "text/plain; charset=utf-8", "application/octet-stream"]
    assert [headers["Content-Type"] for headers, _ in service.got] == kinds
    headers = service.got[0][0]
    assert (headers["Seequeue-Queue"], headers["Seequeue-Deliveries"], headers["Authorization"]) == (
        name,
        "1",
        "Bearer x",
    )
    assert queue.count().count == queue.count().reserved == 0


def test_the_status_decides(site: App, queue: Queue, dead: Queue, name: str, service: Service) -> None:
    service.plans = [(429, {"Retry-After": "2000"}), (503, {}), (404, {}), (301, {"Location": "/"})]
    queue.push_many(["a", "b", "c", "d"])
    assert forward(site, name, service.url) == ["retried", "retried", "rejected", "rejected"]
    [b, a] = queue.delayed()
    assert (b, a, a.reason, b.reason) == (b"b", b"a", "status 429", "Failed: status 503")
    assert a.deadline is not None and b.deadline is not None and 1000 < a.deadline - b.deadline < 1100
    assert [(one, one.reason) for one in dead.all(details=True)] == [
        (b"c", "Reject: status 404"),
        (b"d", "Reject: status 301"),
    ]


def test_a_service_that_is_away_is_tried_again(site: App, queue: Queue, name: str) -> None:
    queue.push("a")
    assert forward(site, name, "http://127.0.0.1:1/") == ["retried"]
    assert "refused" in str(next(iter(queue.delayed())).reason)


def test_a_wrong_endpoint_or_header_takes_no_message(site: App, name: str) -> None:
    for endpoint in ("nowhere", "http://", "http://[::1"):
        assert "ENDPOINT" in err(site.url, "forward", name, endpoint, code=2)
    assert "NAME: VALUE" in err(site.url, "forward", name, "http://localhost", "-H", "nothing", code=2)


def test_an_ack_that_is_lost_is_sent_again(front: HttpProxy, queue: Queue, name: str, service: Service) -> None:
    queue.push("a")
    front.lose("/settle")
    done = seequeue(front.url, "forward", name, service.url, "--until-empty")
    assert b"Traceback" not in done.stderr
    assert (len(service.got), queue.count().reserved) == (1, 0)


@pytest.mark.parametrize(
    ("text", "expected"), [("7", 7), ("", None), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)]
)
def test_a_retry_after_is_a_number_or_a_date(text: str, expected: float | None) -> None:
    assert retry_after(text) == expected
    assert (retry_after(formatdate(4_000_000_000, usegmt=True)) or 0) > 50
