"""What can go wrong with the embedded server: damaged data, a killed supervisor, a deleted socket, a full disk."""

import json
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

from broker.connections.connection import connect
from tests.servers import ROOT, App, free_port, until

pytestmark = pytest.mark.slow

Serve = Callable[..., App]
Damage = Callable[[Path], object]


def call(app: App, path: str, data: bytes | None = None) -> Any:
    """Return the JSON answer of a route of the default queue, or of another path."""
    url = app.url + (path if path.startswith("/") else f"/api/queue/{path}")
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, data), timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    return json.loads(answer.read())


def push(app: App, *messages: str) -> None:
    for message in messages:
        assert call(app, "push", b"message=" + message.encode())["success"]


def stays_away(app: App) -> str:
    """Start the app where it must not start, and return the one line that it says."""
    command = [sys.executable, str(ROOT / "app.py")]
    env = {**app.env, "PORT": str(free_port())}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if "[INFO]" not in line]
    assert line.startswith("Cannot start: ") and line.endswith(".")
    return line


def repair_as_told(line: str) -> "subprocess.CompletedProcess[str]":
    """Run the very command that the line of a refused start names."""
    [command] = re.findall(r"with: (cd .*)\.$", line)
    env = {"PATH": os.environ["PATH"]}
    return subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True, timeout=60, check=False)


def server_of(folder: Path) -> int:
    return int(connect(f"unix://{folder}/valkey.sock").info("server")["process_id"])


def supervisor_of(folder: Path) -> int:
    owners = until(lambda: (folder / "valkey.lock").read_text().split()[1:2])  # it may just be written
    return int(owners[0])


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


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


DAMAGES: dict[str, tuple[Damage, list[str]]] = {  # with what is left after a repair
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
    app, (do, left) = serve(), DAMAGES[damage]
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
    line = stays_away(app)
    assert {path.name: path.read_bytes() for path in (app.folder / "appendonlydir").iterdir()} == damaged
    done = repair_as_told(line)
    assert done.returncode == 0, done.stderr
    [copy] = app.folder.glob("appendonlydir.broken-*")
    assert str(copy) in done.stdout
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == damaged
    app.start()
    assert call(app, "all")["messages"] == before + (MESSAGES if left == ["all"] else left)
    push(app, "after")
    app.end()
    app.start()
    assert call(app, "all")["messages"][-1] == "after"


def test_data_cut_off_at_the_end_is_used_up_to_there(serve: Serve) -> None:
    """As a power failure leaves it: the last command was never answered."""
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
    done = repair_as_told(stays_away(app))
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
def test_what_cannot_be_repaired_is_left_alone(serve: Serve, damage: Damage) -> None:
    app = serve()
    push(app, *MESSAGES)
    app.end()
    damage(app.folder)
    line = stays_away(app)
    files = sorted(path.name for path in app.folder.iterdir())
    done = repair_as_told(line)
    assert done.returncode == 1 and "Nothing was changed" in done.stderr and "Traceback" not in done.stderr
    assert sorted(path.name for path in app.folder.iterdir()) == files


def test_data_in_use_is_not_repaired(serve: Serve) -> None:
    app = serve()
    command = [sys.executable, "-m", "embedded.repair", str(app.folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "another instance" in done.stderr


@pytest.mark.soak
def test_a_first_start_that_was_cut_short_is_begun_again(serve: Serve) -> None:
    """Before the manifest is written there are a base of no messages and an empty file of commands."""
    app = serve()
    app.end()
    manifest(app.folder).unlink()
    app.start()
    assert call(app, "count")["count"] == 0


# --- the supervisor and the socket


def test_a_killed_keeper_is_replaced_and_the_server_serves_on(serve: Serve) -> None:
    app = serve()
    push(app, "kept")
    server = server_of(app.folder)
    for _ in range(2):
        supervisor = supervisor_of(app.folder)
        os.kill(supervisor, signal.SIGKILL)
        assert call(app, "count")["count"] == 1
        until(lambda: supervisor_of(app.folder) != supervisor)  # noqa: B023
        assert server_of(app.folder) == server
    os.kill(server, signal.SIGKILL)  # the new supervisor does a supervisor's work
    until(lambda: call(app, "count").get("count") == 1)
    server = server_of(app.folder)
    app.end()
    assert not is_alive(server) and not is_alive(supervisor_of(app.folder))
    app.start()
    assert call(app, "pop", b"")["message"] == "kept"


def test_a_keeper_and_its_server_that_are_killed_together_are_replaced(serve: Serve) -> None:
    app = serve()
    push(app, "kept")
    supervisor, server = supervisor_of(app.folder), server_of(app.folder)
    os.kill(supervisor, signal.SIGKILL)
    os.kill(server, signal.SIGKILL)
    until(lambda: call(app, "count").get("count") == 1)
    assert supervisor_of(app.folder) != supervisor


@pytest.mark.soak
def test_a_stop_right_after_the_keeper_was_killed_ends_the_server(serve: Serve) -> None:
    app = serve()
    push(app, "kept")
    server = server_of(app.folder)
    os.kill(supervisor_of(app.folder), signal.SIGKILL)
    app.end()
    assert not is_alive(server)
    app.start()
    assert call(app, "all")["messages"] == ["kept"]


def test_a_new_keeper_ends_the_server_when_the_master_is_killed(serve: Serve) -> None:
    app = serve()
    supervisor, server = supervisor_of(app.folder), server_of(app.folder)
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: supervisor_of(app.folder) != supervisor)
    app.end(signal.SIGKILL)
    until(lambda: not is_alive(server) and not is_alive(supervisor_of(app.folder)))


@pytest.mark.soak
@pytest.mark.parametrize("supervisor_killed", [False, True])
def test_a_deleted_socket_is_made_anew(serve: Serve, supervisor_killed: bool) -> None:
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
    """A disk of 3 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        assert not os.environ.get("CI"), "a small disk cannot be mounted"
        pytest.skip("a small disk cannot be mounted")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> None:
    """Leave no room on a disk."""
    with open(disk / "filling", "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def test_a_disk_that_becomes_full_is_said_and_recovered_from(serve: Serve, disk: Path) -> None:
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
def test_a_start_on_a_full_disk_says_so(serve: Serve, disk: Path, used_before: bool) -> None:
    app = serve(DATA_DIR=str(disk / "data"))
    push(app, "kept")
    app.end()
    if not used_before:
        app.env["DATA_DIR"] = str(disk / "new")
    fill(disk)
    line = stays_away(app)
    assert "disk is full" in line and str(disk) in line
    (disk / "filling").unlink()
    app.start()
    assert call(app, "all")["messages"] == (["kept"] if used_before else [])


def test_a_redis_of_ones_own_whose_disk_is_full_is_said_to_be_that(serve: Serve, disk: Path, own_store: Any) -> None:
    store = own_store("valkey", "--dir", str(disk), "--appendonly", "yes", "--appendfsync", "everysec")
    app = serve(REDIS_URL=store.url)
    fill(disk)
    until(lambda: call(app, "push", b"message=" + b"x" * 100_000).get("error") == "disk_full")
    assert call(app, "/healthz")["error"] == "disk_full"
