"""The data folder against the other users of the machine, as user "nobody"."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.embedded.helpers import failed_start, pop, push
from tests.servers import App

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")]

Serve = Callable[..., App]
NOBODY = 65534


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter."""
    with tempfile.TemporaryDirectory(prefix="q") as made:
        os.chmod(made, 0o755)
        yield Path(made)


def opened_by_nobody(folder: Path) -> list[bytes]:
    """Return what another user can open in the folder: to read it, or to hold its lock."""
    command = ["find", str(folder), "-mindepth", "1", "-readable"]
    done = subprocess.run(
        command, cwd="/", user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=False
    )
    return done.stdout.splitlines()


def test_other_users_can_open_no_file_of_a_folder_that_they_can_enter(serve: Serve, open_folder: Path) -> None:
    app = serve(DATA_DIR=str(open_folder))
    push(app, "secret")
    assert opened_by_nobody(open_folder) == []
    assert f"Other users can enter {open_folder} (mode 755); its files are closed to them." in app.log.read_text()
    app.end()
    for path in [open_folder / "appendonlydir", *open_folder.rglob("*")]:  # as an older version left them
        path.chmod(0o755 if path.is_dir() else 0o644)
    (open_folder / "appendonlydir.broken-1").mkdir(mode=0o755)
    (open_folder / "appendonlydir.broken-1" / "appendonly.aof.1.incr.aof").write_bytes(b"secret")
    assert len(opened_by_nobody(open_folder)) > 5
    app.start()
    assert opened_by_nobody(open_folder) == []
    assert pop(app) == "secret"


def test_a_folder_of_the_owner_alone_is_not_warned_of(serve: Serve, open_folder: Path) -> None:
    app = serve(DATA_DIR=str(open_folder / "data"))  # the app makes it
    assert (open_folder / "data").stat().st_mode & 0o777 == 0o700
    assert "Other users" not in app.log.read_text()


def test_a_folder_in_which_every_user_can_write_is_refused(open_folder: Path) -> None:
    open_folder.chmod(0o777)
    line = failed_start(open_folder)
    assert "every user" in line and "chmod 700" in line
    assert list(open_folder.iterdir()) == []
