"""The folder of the files of counts in the temporary directory: it can be removed, impossible to make, or left over."""

import os
import shutil
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import App, Store, until
from tests.web.metrics.test_metrics import metrics_of, pushes

pytestmark = pytest.mark.slow


def folders(tmp: Path) -> list[Path]:
    return sorted(tmp.glob("seequeue-counts-*"))


def kill_a_worker(app: App) -> None:
    """Kill a worker and wait for the next one."""
    worker = app.workers()[0]
    os.kill(worker, signal.SIGKILL)
    until(lambda: len(app.workers()) == 2 and worker not in app.workers())


def reload(app: App) -> None:
    before = app.workers()
    app.stop(signal.SIGHUP)
    until(lambda: len(app.workers()) == 2 and not set(before) & set(app.workers()))


def test_after_a_cleaner_has_removed_the_folder_a_reload_counts_together_again(
    serve: Callable[..., App], valkey: Store, name: str, tmp_path: Path
) -> None:
    app = serve(REDIS_URL=valkey.url, TMPDIR=str(tmp_path))
    pushes(app, name, 4)
    shutil.rmtree(folders(tmp_path)[0])
    pushes(app, name, 4)
    kill_a_worker(app)
    reload(app)
    pushes(app, name, 20)
    for _ in range(6):
        assert metrics_of(app)["queue_pushed_total", name] == 20


@pytest.mark.parametrize("at_start", [True, False])
def test_the_app_serves_without_a_temporary_directory(
    serve: Callable[..., App], valkey: Store, name: str, tmp_path: Path, at_start: bool
) -> None:
    tmp = tmp_path / "tmp"
    if not at_start:
        tmp.mkdir()
    app = serve(REDIS_URL=valkey.url, GUNICORN_CMD_ARGS=f"--worker-tmp-dir {tmp}")
    if not at_start:
        shutil.rmtree(tmp)
    kill_a_worker(app)
    reload(app)
    pushes(app, name, 8)
    assert "Each process counts for itself" in app.log.read_text()


def test_a_start_removes_the_folders_of_killed_masters_and_no_others(
    serve: Callable[..., App], valkey: Store, tmp_path: Path
) -> None:
    first = serve(REDIS_URL=valkey.url, TMPDIR=str(tmp_path))
    [killed] = folders(tmp_path)
    second = serve(REDIS_URL=valkey.url, TMPDIR=str(tmp_path))
    [running] = set(folders(tmp_path)) - {killed}
    os.killpg(first.process.pid, signal.SIGKILL)
    first.process.wait()
    third = serve(REDIS_URL=valkey.url, TMPDIR=str(tmp_path))
    assert running.exists() and not killed.exists() and len(folders(tmp_path)) == 2
    second.end()
    third.end()
    assert folders(tmp_path) == []


@pytest.mark.parametrize("damage", [b"", b"\0\0", b"\xff" * 9000, b"\x40\0\0\0\0\0\0\0\x05\0\0\0{{{{{" + b"\0" * 60])
def test_damaged_files_of_counts_are_left_out(
    serve: Callable[..., App], valkey: Store, name: str, tmp_path: Path, damage: bytes
) -> None:
    app = serve(REDIS_URL=valkey.url, TMPDIR=str(tmp_path), WEB_CONCURRENCY="1")
    [folder] = folders(tmp_path)
    for ending in ("counts", "history"):
        (folder / f"1.{ending}").write_bytes(damage)
    pushes(app, name, 3)
    assert metrics_of(app)["queue_pushed_total", name] == 3
    with urllib.request.urlopen(f"{app.url}/api/queue/{name}/events?history=1", timeout=20) as stream:
        assert stream.readline()
    app.stop(signal.SIGTTIN)  # one more worker, to which this file falls
    until(lambda: len(app.workers()) == 2)
    pushes(app, name, 3)
