"""Repair the embedded server's data after a damage: `python -m embedded.repair DATA_DIR`, with the app stopped.

It works on a copy. The repaired copy is loaded once by a real server before it takes the place of the data, and the
damaged data stays beside it. What follows the first damaged place in the append-only file is cut off.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from embedded.supervisor import (
    APPEND_ONLY_DIR,
    MANIFEST,
    CannotStart,
    ServerFailed,
    data_files,
    find_binary,
    open_lock,
    start_server,
    take_folder,
)

FILE = re.compile(r"appendonly\.aof\.([0-9]+)\.(base|incr)\.(?:rdb|aof)")
LINES = re.compile(r"(file \S+ seq [0-9]+ type [bhi].*\n)+")  # of a manifest


class CannotRepair(Exception):
    """The data cannot be repaired; the text is one line that says why. Nothing was changed."""


def repair(data_dir: Path) -> str:
    """Repair the data of a folder and return what was done, in one line.

    Raises:
        CannotRepair: the damage is of another kind; or an app uses the folder.
    """
    os.chdir(data_dir)
    lock = open_lock()
    if take_folder(data_dir, lock, str(os.getpid())):
        raise CannotRepair("its server still runs")
    if not data_files() and not os.path.isdir(APPEND_ONLY_DIR):
        raise CannotRepair("there is no data")
    copy = Path(f"repair-{os.getpid()}")
    try:
        before, after = _repair_copy(data_dir / copy, lock)
        kept = "dump.rdb"
        if os.path.isdir(APPEND_ONLY_DIR):
            kept = f"{APPEND_ONLY_DIR}.broken-{time.strftime('%Y%m%d-%H%M%S')}"
            os.rename(APPEND_ONLY_DIR, kept)
        os.rename(copy / APPEND_ONLY_DIR, APPEND_ONLY_DIR)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return f"{after} of {before} bytes are good and will be used; all that was there before is in {data_dir / kept}"


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
        before = _bytes(files)
        _cut_off_damage(binary, files / MANIFEST)
        after = _bytes(files)
        server = start_server(copy, binary, lock)
        server.terminate()
        server.wait()
    except ServerFailed as error:
        raise CannotRepair(f"a server does not load the repaired copy: {error.reason}") from None
    finally:
        os.chdir(data_dir)
    return before, after


def _write_manifest(manifest: Path) -> None:
    """Write the manifest anew, from the names of the files, if it is missing or damaged."""
    if manifest.exists() and LINES.fullmatch(manifest.read_text("utf-8", "replace")):
        return
    found = {path.name: FILE.fullmatch(path.name) for path in manifest.parent.iterdir()}
    numbered = [(match[2], int(match[1]), name) for name, match in found.items() if match]
    if [kind for kind, _, _ in numbered].count("base") > 1:
        raise CannotRepair(f"{MANIFEST} is gone, and there are several bases, of which only one counts")
    lines = [f"file {name} seq {number} type {kind[0]}\n" for kind, number, name in sorted(numbered)]
    manifest.write_text("".join(lines), encoding="utf-8")


def _cut_off_damage(binary: str, manifest: Path) -> None:
    """Check the files of commands that the manifest names, and cut off what follows the first damage in the last one.

    The tool is the server's binary under another name. It is given the files one by one: it takes a base that is an
    RDB of Valkey 9 for damage, and given the manifest it would cut all of it off.
    """
    names = re.findall(r"^file (\S+\.aof) ", manifest.read_text(encoding="utf-8"), re.MULTILINE)
    names = [name for name in names if _size(manifest.parent / name)]
    for name in names:
        command = ["valkey-check-aof", *(["--fix"] if name == names[-1] else []), f"{APPEND_ONLY_DIR}/{name}"]
        done = subprocess.run(
            command, executable=binary, input=b"y\n", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        if done.returncode:
            told = done.stdout.decode("utf-8", "replace").strip().split("\n")[-1]
            raise CannotRepair(f"the checking tool says of {name}: {told}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: python -m embedded.repair DATA_DIR")
    try:
        print(f"Repaired: {repair(Path(sys.argv[1]).absolute())}.")
    except (CannotRepair, CannotStart, OSError) as failure:
        sys.exit(f"Cannot repair: {failure}. Nothing was changed.")
