"""What the OpenAPI document says is what the server does: thousands of requests are made from it, valid and invalid."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import ROOT, App, Store

TOKEN = "a-token-for-this-test"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("examples", "least"),
    [
        pytest.param(5, 2000, marks=pytest.mark.timeout(600)),  # on a machine that does other work too
        pytest.param(600, 20_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
def test_every_answer_is_as_documented(
    serve: Callable[..., App], own_store: Callable[..., Store], tmp_path: Path, examples: int, least: int
) -> None:
    app = serve(REDIS_URL=own_store().url, API_TOKEN=TOKEN, TRUSTED_PROXIES="127.0.0.1")
    options = [
        *("--header", f"Authorization: Bearer {TOKEN}", "--checks", "all", "--continue-on-failure", "--no-color"),
        *("--exclude-path-regex", "events$", "--request-timeout", "60", "--no-shrink", "--max-examples", str(examples)),
        *("--generation-database", "none", "--suppress-health-check", "all", "--workers", "1"),
    ]
    command = ["-m", "schemathesis.cli", "--config-file", str(ROOT / "tests/schemathesis.toml"), "run"]
    done = subprocess.run(
        [sys.executable, *command, f"{app.url}/api/openapi.json", *options],
        env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.conformance", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    said = "\n".join(line[:300] for line in done.stdout.splitlines())
    assert done.returncode == 0, said + done.stderr
    generated = re.search(r"(\d+) generated", said)
    assert generated and int(generated[1]) >= least, said
    assert "Traceback" not in app.log.read_text()
