"""The command `seequeue` against a real server: what each verb prints, and how it ends."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from seequeue import Queue

from tests.client.commands import COMMAND, environment, seequeue, start
from tests.client.helpers import HttpProxy
from tests.servers import App, until

pytestmark = pytest.mark.slow  # each starts processes


def out(url: str, *arguments: str, **options: Any) -> str:
    """Return what the command prints."""
    return seequeue(url, *arguments, **options).stdout.decode()


def err(url: str, *arguments: str, code: int, **options: Any) -> str:
    """Return the one line on standard error with which the command fails."""
    done = seequeue(url, *arguments, code=code, **options)
    line = done.stderr.decode()
    assert line.startswith("seequeue: ") and line.count("\n") == 1 and "Traceback" not in line
    return line.removeprefix("seequeue: ").rstrip()


def on_terminal(url: str, *arguments: str, sent: Path | None = None) -> str:
    """Return what the command prints to a terminal."""
    ours, theirs = pty.openpty()
    with open(sent or os.devnull, "rb") as file:
        process = subprocess.Popen(
            [*COMMAND, *arguments], env=environment(url), stdin=file, stdout=theirs, stderr=theirs
        )
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 1 << 16):
            shown += block
    except OSError:  # how a terminal ends on Linux
        pass
    assert process.wait(60) == 0, shown
    return shown.decode()


@pytest.mark.parametrize("message", [b"", b"line\n", b"\xff\x00two\r\n"], ids=repr)
def test_a_message_from_standard_input_is_popped_byte_for_byte(site: App, name: str, message: bytes) -> None:
    seequeue(site.url, "push", name, sent=b"start" + message)
    assert seequeue(site.url, "pop", name).stdout == b"start" + message


def test_push_takes_what_the_api_takes(site: App, queue: Queue, name: str) -> None:
    assert out(site.url, "push", name, "first") == "Pushed. 1 waiting.\n"
    for _ in range(2):
        assert json.loads(out(site.url, "push", name, "next", "--front", "--key", "k", "--json")) == {"count": 2}
    assert out(site.url, "push", name, "later", "--delay", "900").startswith("Pushed as ")
    assert list(queue.all()) == [b"next", b"first"]
    assert list(queue.delayed()) == [b"later"]


def test_each_line_is_pushed_as_it_comes(site: App, queue: Queue, name: str, tmp_path: Path) -> None:
    process = start(site.url, "push", name, "--each-line", log=tmp_path / "log", stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.write(b"one\r\n\ntwo\nthr")
    process.stdin.flush()
    until(lambda: queue.count().count == 2)
    process.stdin.write(b"ee")
    process.stdin.close()
    assert process.wait(60) == 0
    assert list(queue.all()) == [b"one", b"two", b"three"]
    assert (tmp_path / "log").read_text() == "3 pushed.\n"


def test_lines_that_are_refused_leave_those_before_them(site: App, queue: Queue, name: str) -> None:
    sent = b"a\nb\n" * 40_000 + b"x" * ((1 << 20) + 1)
    assert err(site.url, "push", name, "--each-line", sent=sent, code=1).startswith("80,000 pushed; ")
    assert queue.count().count == 80_000


def test_pop_takes_from_the_first_queue_that_has_a_message(site: App, queue: Queue, name: str) -> None:
    queue.push_many(["a", "b\nc", b"\xff"])
    assert out(site.url, "pop", "no-such-queue", name) == "a"
    assert out(site.url, "pop", name, "--max", "9", "--json") == '{"message":"b\\nc"}\n{"message":{"base64":"/w=="}}\n'


def test_list_shows_messages_or_what_is_known_of_them(site: App, queue: Queue, name: str) -> None:
    queue.push_many(["apple", "pear", "grape"])
    assert out(site.url, "list", name, "--offset", "1", "--limit", "1") == "pear\n"
    assert out(site.url, "list", name, "--contains", "AP", "--json").splitlines() == [
        '{"message":"apple","position":0,"deliveries":0}',
        '{"message":"grape","position":2,"deliveries":0}',
    ]
    assert out(site.url, "count", name) == "3\n"
    assert json.loads(out(site.url, "count", name, "--json"))["count"] == 3


def test_a_terminal_gets_no_control_characters_of_a_message(site: App, queue: Queue, name: str) -> None:
    queue.push_many(["\x1b[2Jcleared\n", b"\xff"])
    assert on_terminal(site.url, "list", name) == "\\x1b[2Jcleared\\n\r\n\\xff\r\n"


def test_a_whole_queue_is_tidied(site: App, queue: Queue, name: str) -> None:
    queue.push_many(["a", "b", "c"])
    assert out(site.url, "remove", name, "b", "--position", "1").startswith("1 removed. Undo: seequeue restore ")
    assert json.loads(out(site.url, "move", name, name + "x", "--contains", "a", "--json"))["moved"] == 1
    cleared = json.loads(out(site.url, "clear", name, "--json"))
    assert cleared["cleared"] == 1 and queue.count().count == 0
    assert out(site.url, "restore", name, cleared["undo"]) == "1 restored.\n"
    assert list(queue.all()) == [b"c"]
    seequeue(site.url, "pause", name)
    assert queue.count().paused
    seequeue(site.url, "resume", name)
    assert not queue.count().paused
    assert out(site.url, "settings", name, "--at-once", "3", "--per-second", "0.5").splitlines() == [
        "at-once: 3",
        "per-second: 0.5",
        "max-deliveries: 0",
    ]


def test_queues_is_a_table_where_there_is_no_terminal(site: App, queue: Queue, name: str) -> None:
    queue.push_many(["a"] * 1234)
    head, row = out(site.url, "queues", name).splitlines()
    assert head.split() == ["queue", "waiting", "reserved", "delayed", "dead", "clients", "oldest"]
    assert row.split()[:6] == [name, "1,234", "0", "0", "0", "0"]
    assert json.loads(out(site.url, "queues", name, "--json"))["count"] == 1234


def test_nothing_there_ends_with_3(site: App, queue: Queue, name: str) -> None:
    assert err(site.url, "pop", name, code=3) == "The queue is empty."
    assert seequeue(site.url, "pop", name, "--json", code=3).stderr == b""
    queue.push("a")
    assert err(site.url, "list", name, "--contains", "b", code=3) == "Nothing was found."
    queue.pause()
    assert "paused" in err(site.url, "pop", name, code=3)


def test_what_the_server_refuses_ends_with_1(site: App, name: str) -> None:
    assert err(site.url, "push", name, "", code=1) == "A message must not be empty or null."
    assert "Not a queue name" in err(site.url, "count", "a b", code=1)
    assert "undo" in err(site.url, "restore", name, "0" * 16, code=1)


def test_an_error_that_nobody_foresaw_is_one_line_too(site: App, name: str) -> None:
    assert "AttributeError" in err(site.url, "push", name, code=1, preexec_fn=lambda: os.close(0))


def test_a_wrong_command_line_ends_with_2(site: App, name: str) -> None:
    assert err(site.url, "push", code=2) == "Missing argument 'QUEUE'. See: seequeue push --help"
    assert "No such command" in err(site.url, "drop", code=2)
    assert "--each-line takes no MESSAGE" in err(site.url, "push", name, "a", "--each-line", code=2)
    assert "Give --contains" in err(site.url, "remove", name, code=2)
    assert "http://" in err("nowhere", "count", name, code=2)


def test_a_server_that_is_away_ends_with_4(name: str) -> None:
    done = seequeue("http://127.0.0.1:1", "count", name, "--timeout", "0.2", code=4)
    lines = done.stderr.decode().splitlines()  # a warning that it tries again, perhaps, and the error
    assert all(line.startswith("seequeue: ") for line in lines) and len(lines) <= 2
    assert lines[-1].startswith("seequeue: Cannot reach the server")


def test_a_server_that_comes_back_is_waited_for(front: HttpProxy, queue: Queue, name: str, tmp_path: Path) -> None:
    front.refuse()
    process = start(front.url, "push", name, "a", log=tmp_path / "log")
    until(lambda: "trying again" in (tmp_path / "log").read_text())
    front.accept()
    assert process.wait(60) == 0
    assert list(queue.all()) == [b"a"]


def test_a_token_is_sent(serve: Any) -> None:
    app = serve(API_TOKEN="a-token-of-this-test", WEB_CONCURRENCY="1")
    for verb in (["count", "jobs"], ["tail", "jobs"], ["watch"], ["work", "jobs", "--", "true"]):
        assert "token" in err(app.url, *verb, code=1)
    assert out(app.url, "count", "jobs", "--token", "a-token-of-this-test") == "0\n"
    assert out(app.url, "count", "jobs", env={"SEEQUEUE_TOKEN": "a-token-of-this-test"}) == "0\n"


def test_a_reader_that_leaves_ends_a_list_quietly(site: App, queue: Queue, name: str) -> None:
    queue.push_many(["x" * 1000] * 1000)
    process = subprocess.Popen(
        [*COMMAND, "list", name], env=environment(site.url), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout and process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert (process.stderr.read(), process.wait(60)) == (b"", 141)


def test_serve_runs_the_server_if_it_is_installed(site: App, tmp_path: Path) -> None:
    assert err(site.url, "serve", "--port", "0", code=1) == "The server is not installed. pip install seequeue."
    installed = tmp_path / "server-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: server\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[seequeue.serve]\nserve = server_of_this_test:print_them\n")
    (tmp_path / "server_of_this_test.py").write_text("print_them = print\n")
    path = environment(site.url)["PYTHONPATH"]
    found = out(site.url, "serve", "--port", "0", "--help", env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{path}"})
    assert found == "['--port', '0', '--help']\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_verbs_and_queues(site: App, queue: Queue, name: str, shell: str) -> None:
    assert "_SEEQUEUE_COMPLETE" in out(site.url, "completion", shell)
    queue.push("a")
    words = {"COMP_WORDS": f"seequeue count {name}", "COMP_CWORD": "2" if shell != "fish" else name}
    done = seequeue(site.url, env={"_SEEQUEUE_COMPLETE": f"{shell}_complete", **words})
    assert name in done.stdout.decode()
    away = seequeue("http://127.0.0.1:1", env={"_SEEQUEUE_COMPLETE": f"{shell}_complete", **words})
    assert (away.stdout.strip(), away.stderr) == (b"", b"")


def test_the_library_alone_does_not_load_the_command() -> None:
    code = "import sys, seequeue; sys.exit('click' in sys.modules or 'seequeue.command' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env=environment(""), check=True)
