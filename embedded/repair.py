"""Repair damaged data of the embedded server: `python -m embedded.repair DATA_DIR`, while the app is stopped.

It repairs a copy, by truncating the append-only file at the first damage. The copy replaces the data only after a real
server has loaded it, and the damaged data is kept beside it.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from embedded.permissions import UMASK
from embedded.supervisor import (
    APPEND_ONLY_DIR,
    MANIFEST,
    CannotStart,
    ServerFailed,
    data_files,
    find_binary,
    open_lock,
    start_server,
    stop_server,
    take_folder,
)

FILE = re.compile(r"appendonly\.aof\.([0-9]+)\.(base|incr)\.(?:rdb|aof)")
LINES = re.compile(r"(file \S+ seq [0-9]+ type [bhi].*\n)+")  # of a manifest


class CannotRepair(Exception):
    """The data cannot be repaired, and nothing was changed. The text is one line with the reason."""


def repair(data_dir: Path) -> str:
    """Repair the data of a folder and return a summary in one line.

    Raises:
        CannotRepair: there is no data, or truncating it does not repair the damage.
        CannotStart: a running app uses the folder.
    """
    os.chdir(data_dir)
    lock = open_lock()
    take_folder(data_dir, lock, str(os.getpid()))
    if not data_files() and not os.path.isdir(APPEND_ONLY_DIR):
        raise CannotRepair("there is no data")
    copy = Path(f"repair-{os.getpid()}")
    try:
        before, after = _repair_copy(data_dir / copy, lock)
        _keep_owner(copy / APPEND_ONLY_DIR)
        kept = "dump.rdb"
        if os.path.isdir(APPEND_ONLY_DIR):
            kept = f"{APPEND_ONLY_DIR}.broken-{time.strftime('%Y%m%d-%H%M%S')}"
            os.rename(APPEND_ONLY_DIR, kept)
        os.rename(copy / APPEND_ONLY_DIR, APPEND_ONLY_DIR)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return f"kept {after} of {before} bytes; the original data is in {data_dir / kept}"


def _repair_copy(copy: Path, lock: int) -> tuple[int, int]:
    """Copy the data, repair and load the copy, and return its sizes before and after, in bytes."""
    data_dir, binary = Path.cwd(), find_binary()
    copy.mkdir(mode=0o700)
    files = copy / APPEND_ONLY_DIR
    if os.path.isdir(APPEND_ONLY_DIR):
        shutil.copytree(APPEND_ONLY_DIR, files)
    else:
        files.mkdir()
        shutil.copy("dump.rdb", files / "appendonly.aof.2.base.rdb")
    os.chdir(copy)
    try:
        _write_manifest(files / MANIFEST)
        before = _total_size(files)
        _truncate_at_damage(binary, files / MANIFEST)
        after = _total_size(files)
        server = start_server(copy, binary, lock)
        stop_server(server)
    except ServerFailed as error:
        raise CannotRepair(f"the server cannot load the repaired copy: {error.reason}") from None
    finally:
        os.chdir(data_dir)
    return before, after


def _write_manifest(manifest: Path) -> None:
    """Rewrite the manifest from the names of the files if it is missing or damaged."""
    if manifest.exists() and LINES.fullmatch(manifest.read_text("utf-8", "replace")):
        return
    found = {path.name: FILE.fullmatch(path.name) for path in manifest.parent.iterdir()}
    numbered = [(match[2], int(match[1]), name) for name, match in found.items() if match]
    if [kind for kind, _, _ in numbered].count("base") > 1:
        raise CannotRepair(f"{MANIFEST} is missing, so it is unknown which of several base files is valid")
    lines = [f"file {name} seq {number} type {kind[0]}\n" for kind, number, name in sorted(numbered)]
    manifest.write_text("".join(lines), encoding="utf-8")


def _truncate_at_damage(binary: str, manifest: Path) -> None:
    """Check the command files in the manifest, and truncate the last one at its first damage.

    The checking tool is the server's binary under another name. It checks one file at a time, because it mistakes a
    base that is an RDB of Valkey 9 for damage: given the manifest, it would truncate all of it.
    """
    names = re.findall(r"^file (\S+\.aof) ", manifest.read_text(encoding="utf-8"), re.MULTILINE)
    names = [name for name in names if _size(manifest.parent / name)]
    for name in names:
        command = ["valkey-check-aof", *(["--fix"] if name == names[-1] else []), f"{APPEND_ONLY_DIR}/{name}"]
        done = subprocess.run(
            command, executable=binary, input=b"y\n", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        if done.returncode:
            reason = done.stdout.decode("utf-8", "replace").strip().split("\n")[-1]
            raise CannotRepair(f"valkey-check-aof on {name}: {reason}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _keep_owner(files: Path) -> None:
    """Give the repaired files to the owner of the data folder: root may repair the data of a service."""
    owner = os.stat(".")
    if owner.st_uid != os.geteuid():
        for path in (files, *files.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)


def _total_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: python -m embedded.repair DATA_DIR")
    try:
        os.umask(UMASK)
        print(f"Repaired: {repair(Path(sys.argv[1]).absolute())}.")
    except (CannotRepair, CannotStart, OSError) as failure:
        sys.exit(f"Cannot repair: {failure}. Nothing was changed.")
