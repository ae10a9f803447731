"""A client that a public generator makes of the OpenAPI document pushes, waits and acks."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.servers import App, until


@pytest.fixture
def made(site: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the client's package."""
    name, command = "made_client", ["-m", "openapi_python_client", "generate", "--meta", "none"]
    options = ["--url", f"{site.url}/api/openapi.json", "--output-path", str(tmp_path / name)]
    done = subprocess.run(
        [sys.executable, *command, *options], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Unable to process" not in done.stdout, done.stdout
    assert {line for line in done.stdout.splitlines() if "Unsupported content type" in line} <= {
        "Unsupported content type text/plain",
        "Unsupported content type application/x-ndjson",
    }
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.slow
def test_a_generated_client_pushes_waits_and_acks(made: str, site: App, name: str) -> None:
    models = import_module(f"{made}.models")
    client = import_module(f"{made}.client").Client(site.url)

    def call(operation: str, **options: Any) -> Any:
        return import_module(f"{made}.api.{operation}_named").sync(name, client=client, **options)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, "reservations.reserve", wait=30, lease=60)
        until(lambda: call("reading_a_queue.count").waiters == 1)
        pushed = call("push_and_pop.push", body=models.Push("first"))
        assert (pushed.success, pushed.message, pushed.count) == (True, "first", 1)
        held = waiting.result()
    assert (held.message, held.deliveries) == ("first", 1)
    assert call("reservations.ack", body=models.Ack(id=held.id)).acked == 1
    assert call("reservations.ack", id="unknown").error == "stale"
    many = call("push_and_pop.push", body=models.PushMany([{"a": 1}, models.NewBytes("/wA=")], front=True))
    assert (many.pushed, many.count) == (2, 2)
    assert call("push_and_pop.pop", max_=1).messages == ['{"a":1}']
    assert call("push_and_pop.pop", wait=1).message == models.Bytes("/wA=")
    nothing = call("push_and_pop.pop")
    assert (nothing.success, nothing.error) == (False, "empty")
