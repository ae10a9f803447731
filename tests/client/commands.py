"""Run the command `seequeue` as a process."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.servers import ROOT

COMMAND = [sys.executable, "-c", "from seequeue.command import main; main()"]


def environment(url: str, **more: str) -> dict[str, str]:
    """Return the environment of the command."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("SEEQUEUE_")}
    paths = os.pathsep.join([str(ROOT / "client/python"), str(ROOT)])
    return {**known, "PYTHONPATH": paths, "SEEQUEUE_URL": url, **more}


def put_on_path(folder: Path) -> str:
    """Put the command into a folder; return a PATH that begins with it."""
    script = folder / "seequeue"
    env = {"PYTHONPATH": environment("")["PYTHONPATH"]}
    script.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path[:0] = {env['PYTHONPATH'].split(os.pathsep)}\n{COMMAND[2]}\n"
    )
    script.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def seequeue(
    url: str, *arguments: str, sent: bytes = b"", code: int = 0, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run the command to its end, and check its exit code."""
    env = environment(url, **options.pop("env", {}))
    done = subprocess.run([*COMMAND, *arguments], input=sent, env=env, capture_output=True, timeout=60, **options)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def start(url: str, *arguments: str, log: Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start the command; what it prints goes to a file."""
    env = environment(url, **options.pop("env", {}))
    with open(log, "ab") as file:
        return subprocess.Popen([*COMMAND, *arguments], env=env, stdout=file, stderr=file, **options)
