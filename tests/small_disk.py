"""A small disk that a test can fill."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def disk_if_permitted(place: Path, mib: int) -> Iterator[Path | None]:
    """Mount an empty disk of `mib` MiB at a new folder; give None where that is not permitted, and fail in CI."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(place)]
    if subprocess.run(mount, check=False).returncode:
        assert not os.environ.get("CI"), "a small disk cannot be mounted"
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextlib.contextmanager
def small_disk(place: Path, mib: int) -> Iterator[Path]:
    """Mount an empty disk of `mib` MiB at a new folder; skip the test where that is not permitted, except in CI."""
    with disk_if_permitted(place, mib) as disk:
        if disk is None:
            pytest.skip("a small disk cannot be mounted")
        yield disk


def fill(disk: Path) -> None:
    """Use up all the space of a disk, in a file called `filling`."""
    with open(disk / "filling", "ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
