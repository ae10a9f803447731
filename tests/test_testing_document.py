"""docs/testing.md: its tests pass in a project of their own, and its service works beside others."""

import re
import urllib.request
from collections.abc import Callable

import pytest
import yaml

from settings import SETTINGS
from tests.console import blocks
from tests.servers import ROOT, App

pytest_plugins = ("pytester",)
DOCUMENT = (ROOT / "docs/testing.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_examples_pass(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in blocks(DOCUMENT, "python"):
        (pytester.path / text.partition("\n")[0].removeprefix("# ")).write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "client" / "python"))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = pytester.runpytest_subprocess("-W", "error", "-p", "anyio", "-p", "seequeue.testing")
    result.assert_outcomes(passed=3)


@pytest.mark.slow
def test_the_service_answers_to_its_name(serve: Callable[..., App]) -> None:
    [compose] = [yaml.safe_load(text) for text in blocks(DOCUMENT, "yaml")]
    service, image = compose["services"]["seequeue"], (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert service["environment"].keys() <= {row.name for row in SETTINGS}
    [volume] = service["volumes"]
    assert f"DATA_DIR={volume.rpartition(':')[2]}" in image
    assert "HOST=0.0.0.0" in image and "HEALTHCHECK" in image
    app = serve(HOST="0.0.0.0", **service["environment"])
    host = re.sub("https?://", "", compose["services"]["shop"]["environment"]["SEEQUEUE_URL"])
    request = urllib.request.Request(f"{app.url}/api/queue/count", headers={"Host": host})
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 200
