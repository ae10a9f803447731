"""Faults of the embedded server: damaged data, a killed supervisor, a deleted socket, a full disk."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import embedded.supervisor as supervisor_module
from broker.connections.connection import connect
from tests.embedded.helpers import call, failed_start, is_alive, pop, push, server_of, supervisor_of
from tests.servers import ROOT, App, until
from tests.small_disk import fill, small_disk

pytestmark = pytest.mark.slow

Serve = Callable[..., App]
Damage = Callable[[Path], object]


def run_repair(line: str) -> "subprocess.CompletedProcess[str]":
    """Run the command in the line of a failed start."""
    [command] = re.findall(r"with: (cd .*)\.$", line)
    env = {"PATH": os.environ["PATH"]}
    return subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True, timeout=60, check=False)


# --- damaged data


def increment(folder: Path) -> Path:
    [path] = (folder / "appendonlydir").glob("*.incr.aof")
    return path


def manifest(folder: Path) -> Path:
    return folder / "appendonlydir/appendonly.aof.manifest"


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def break_in_the_middle(data: bytes) -> bytes:
    """Overwrite the head of the command that pushed m5."""
    at = data.rindex(b"*", 0, data.index(b"m5"))
    return data[:at] + b"\0\0" + data[at + 2 :]


DAMAGES: dict[str, tuple[Damage, list[str]]] = {  # and the messages that a repair saves
    "garbage at the end": (lambda at: edit(increment(at), lambda data: data + b"garbage\r\n"), ["all"]),
    "zeros at the end": (lambda at: edit(increment(at), lambda data: data + bytes(4096)), ["all"]),
    "in the middle": (lambda at: edit(increment(at), break_in_the_middle), ["m0", "m1", "m2", "m3", "m4"]),
    "manifest missing": (lambda at: manifest(at).unlink(), ["all"]),
    "manifest empty": (lambda at: manifest(at).write_bytes(b""), ["all"]),
    "manifest damaged": (lambda at: edit(manifest(at), lambda data: b"\0" * len(data)), ["all"]),
}
ALWAYS = [("in the middle", True), ("manifest missing", False)]
MESSAGES = [f"m{number}" for number in range(10)]
CASES = [
    pytest.param(damage, rewritten, marks=() if (damage, rewritten) in ALWAYS else pytest.mark.soak)
    for damage in DAMAGES
    for rewritten in (False, True)
]


@pytest.mark.parametrize(("damage", "rewritten"), CASES)
def test_a_start_on_damaged_data_names_the_command_that_repairs_it(serve: Serve, damage: str, rewritten: bool) -> None:
    app, (do, saved) = serve(), DAMAGES[damage]
    before = ["kept"] if rewritten else []
    if rewritten:  # now the first messages are in a base file
        push(app, *before)
        redis = connect(f"unix://{app.folder}/valkey.sock")
        redis.bgrewriteaof()
        until(lambda: not redis.info("persistence")["aof_rewrite_in_progress"])
    push(app, *MESSAGES)
    app.end()
    shutil.rmtree(app.folder / "backup", ignore_errors=True)
    do(app.folder)
    damaged = {path.name: path.read_bytes() for path in (app.folder / "appendonlydir").iterdir()}
    line = failed_start(app.env["DATA_DIR"])
    assert {path.name: path.read_bytes() for path in (app.folder / "appendonlydir").iterdir()} == damaged
    assert "valkey.log" in line or "manifest" in damage
    done = run_repair(line)
    assert done.returncode == 0, done.stderr
    [copy] = app.folder.glob("appendonlydir.broken-*")
    assert str(copy) in done.stdout
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == damaged
    app.start()
    assert call(app, "all")["messages"] == before + (MESSAGES if saved == ["all"] else saved)
    push(app, "after")
    app.end()
    app.start()
    assert call(app, "all")["messages"][-1] == "after"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
def test_data_that_root_repairs_still_belongs_to_the_user_of_the_service(serve: Serve) -> None:
    app = serve()
    push(app, *MESSAGES)
    app.end()
    manifest(app.folder).unlink()
    line = failed_start(app.env["DATA_DIR"])
    subprocess.run(["chown", "-R", "12345:12345", app.folder], check=True)
    done = run_repair(line)
    assert done.returncode == 0, done.stderr
    repaired = [path.stat() for path in (app.folder / "appendonlydir", *(app.folder / "appendonlydir").iterdir())]
    assert len(repaired) > 2 and {(one.st_uid, one.st_gid) for one in repaired} == {(12345, 12345)}


def test_a_truncated_last_command_is_ignored(serve: Serve) -> None:
    """A power failure leaves such a file. The command was never acknowledged."""
    app = serve()
    push(app, *MESSAGES)
    app.end()
    edit(increment(app.folder), lambda data: data[:-4])
    app.start()
    assert call(app, "all")["messages"] == MESSAGES[:-1]


@pytest.mark.soak
def test_a_dump_without_an_append_only_file_is_not_an_empty_queue(serve: Serve) -> None:
    app = serve()
    push(app, *MESSAGES)
    connect(f"unix://{app.folder}/valkey.sock").save()
    app.end()
    shutil.rmtree(app.folder / "appendonlydir")
    done = run_repair(failed_start(app.env["DATA_DIR"]))
    assert done.returncode == 0, done.stderr
    app.start()
    assert call(app, "all")["messages"] == MESSAGES


@pytest.mark.soak
@pytest.mark.parametrize(
    "damage",
    [
        lambda at: edit(increment(at), lambda data: data.replace(b"LPUSH", b"LPUSX")),
        lambda at: increment(at).unlink(),
    ],
    ids=["unknown command", "file missing"],
)
def test_data_that_cannot_be_repaired_is_left_unchanged(serve: Serve, damage: Damage) -> None:
    app = serve()
    push(app, *MESSAGES)
    app.end()
    damage(app.folder)
    line = failed_start(app.env["DATA_DIR"])
    files = sorted(path.name for path in app.folder.iterdir())
    done = run_repair(line)
    assert done.returncode == 1 and "Nothing was changed" in done.stderr and "Traceback" not in done.stderr
    assert sorted(path.name for path in app.folder.iterdir()) == files


def test_data_in_use_is_not_repaired(serve: Serve) -> None:
    app = serve()
    command = [sys.executable, "-m", "embedded.repair", str(app.folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "another instance" in done.stderr


@pytest.mark.soak
def test_an_interrupted_first_start_is_repeated(serve: Serve) -> None:
    """It leaves a base without messages and an empty file of commands, but no manifest."""
    app = serve()
    app.end()
    manifest(app.folder).unlink()
    app.start()
    assert call(app, "count")["count"] == 0


# --- the supervisor and the socket


def test_a_killed_supervisor_is_replaced_while_the_server_keeps_running(serve: Serve) -> None:
    app = serve()
    push(app, "kept")
    server = server_of(app.folder)
    for _ in range(2):
        supervisor = supervisor_of(app.folder)
        os.kill(supervisor, signal.SIGKILL)
        assert call(app, "count")["count"] == 1
        until(lambda: supervisor_of(app.folder) != supervisor)  # noqa: B023
        assert server_of(app.folder) == server
    assert "supervisor of the embedded server ended; starting another" in app.log.read_text()
    assert "(ready)" not in app.log.read_text()
    os.kill(server, signal.SIGKILL)  # the new supervisor restarts it
    until(lambda: call(app, "count").get("count") == 1)
    server = server_of(app.folder)
    app.end()
    assert not is_alive(server) and not is_alive(supervisor_of(app.folder))
    app.start()
    assert pop(app) == "kept"


def test_a_supervisor_and_its_server_killed_together_are_replaced(serve: Serve) -> None:
    app = serve()
    push(app, "kept")
    supervisor, server = supervisor_of(app.folder), server_of(app.folder)
    os.kill(supervisor, signal.SIGKILL)
    os.kill(server, signal.SIGKILL)
    until(lambda: call(app, "count").get("count") == 1)
    assert supervisor_of(app.folder) != supervisor


@pytest.mark.soak
def test_a_stop_right_after_the_supervisor_was_killed_stops_the_server(serve: Serve) -> None:
    app = serve()
    push(app, "kept")
    server = server_of(app.folder)
    os.kill(supervisor_of(app.folder), signal.SIGKILL)
    app.end()
    assert not is_alive(server)
    app.start()
    assert call(app, "all")["messages"] == ["kept"]


def test_a_new_supervisor_stops_the_server_after_the_master_is_killed(serve: Serve) -> None:
    app = serve()
    supervisor, server = supervisor_of(app.folder), server_of(app.folder)
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: supervisor_of(app.folder) != supervisor)
    app.end(signal.SIGKILL)
    until(lambda: not is_alive(server) and not is_alive(supervisor_of(app.folder)))


def test_a_supervisor_that_nobody_hears_still_stops_its_server(folder: Path) -> None:
    place = folder / "unheard"
    place.mkdir(mode=0o700)
    read_end, write_end = os.pipe()
    os.close(read_end)  # so that "ready" cannot be written
    command = [sys.executable, supervisor_module.__file__, str(place), str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=write_end) as process:
        os.close(write_end)
        server = until(lambda: server_of(place))
        assert process.stdin
        process.stdin.close()
        assert process.wait(60) == 0
    assert not is_alive(server)


@pytest.mark.soak
@pytest.mark.parametrize("supervisor_killed", [False, True])
def test_a_deleted_socket_is_restored(serve: Serve, supervisor_killed: bool) -> None:
    app = serve()
    push(app, "kept")
    if supervisor_killed:
        supervisor = supervisor_of(app.folder)
        os.kill(supervisor, signal.SIGKILL)
        until(lambda: supervisor_of(app.folder) != supervisor)
    (app.folder / "valkey.sock").unlink()
    until(lambda: (app.folder / "valkey.sock").exists())
    until(lambda: call(app, "count").get("count") == 1)
    until(lambda: connect(f"unix://{app.folder}/valkey.sock").llen("queue:default") == 1)


# --- a full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 3) as place:
        yield place


def test_a_full_disk_is_reported_and_recovered_from(serve: Serve, disk: Path) -> None:
    app = serve(DATA_DIR=str(disk / "data"))
    push(app, "kept")
    fill(disk)
    answers = [call(app, "push", b"message=" + b"x" * 100_000) for _ in range(3)]
    assert not any(answer["success"] for answer in answers)
    until(lambda: call(app, "push", b"message=m")["error"] == "disk_full")
    for path, data in (("push", b"message=m"), ("pop", b""), ("count", None), ("reserve", b""), ("/healthz", None)):
        answer = call(app, path, data)
        assert answer["error"] == "disk_full" and "disk" in answer["message"] and "full" in answer["message"]
    with pytest.raises(urllib.error.HTTPError, match="503"):
        urllib.request.urlopen(app.url + "/healthz")
    until(lambda: "disk is full" in app.log.read_text())
    assert app.log.read_text().count("disk is full") == 1
    (disk / "filling").unlink()
    until(lambda: call(app, "/healthz")["success"])
    assert call(app, "all")["messages"] == ["kept"]
    push(app, "after")
    app.end()


def test_an_app_on_a_full_disk_can_be_stopped(serve: Serve, disk: Path) -> None:
    app = serve(DATA_DIR=str(disk / "data"))
    fill(disk)
    call(app, "push", b"message=" + b"x" * 100_000)
    until(lambda: call(app, "count").get("error") == "disk_full")
    app.end()
    assert app.process.returncode == 0


@pytest.mark.soak
@pytest.mark.parametrize("used_before", [False, True])
def test_a_start_on_a_full_disk_reports_it(serve: Serve, disk: Path, used_before: bool) -> None:
    app = serve(DATA_DIR=str(disk / "data"))
    push(app, "kept")
    app.end()
    if not used_before:
        app.env["DATA_DIR"] = str(disk / "new")
    fill(disk)
    line = failed_start(app.env["DATA_DIR"])
    assert "disk is full" in line and str(disk) in line
    (disk / "filling").unlink()
    app.start()
    assert call(app, "all")["messages"] == (["kept"] if used_before else [])


def test_the_full_disk_of_an_external_redis_is_reported(serve: Serve, disk: Path, own_store: Any) -> None:
    store = own_store("valkey", "--dir", str(disk), "--appendonly", "yes", "--appendfsync", "everysec")
    app = serve(REDIS_URL=store.url)
    fill(disk)
    until(lambda: call(app, "push", b"message=" + b"x" * 100_000).get("error") == "disk_full")
    assert call(app, "/healthz")["error"] == "disk_full"
