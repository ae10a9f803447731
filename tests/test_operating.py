"""docs/operating.md: its metrics exist, its commands work, and its backup can be restored."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.client.commands import put_on_path
from tests.console import TOKEN, at, blocks, check, need
from tests.servers import ROOT, App

DOCUMENT = (ROOT / "docs/operating.md").read_text(encoding="utf-8")


def test_every_metric_is_in_the_reference() -> None:
    reference = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"`(queue_[a-z_]+)", DOCUMENT)):
        assert f"`{name}`" in reference, name


@pytest.mark.slow
def test_a_token_is_asked_for_as_the_document_shows(serve: Callable[..., App], tmp_path: Path) -> None:
    need("curl")
    check(DOCUMENT, serve(API_TOKEN=TOKEN, WEB_CONCURRENCY="1"), tmp_path)


INSTALL, SYSTEMD = [block for block in blocks(DOCUMENT, "sh") if "/opt/" in block or "systemctl" in block]


def script(block: str, root: Path) -> str:
    """Return a block of commands with the folders of root in another folder, and without systemctl."""
    return "set -e\n" + re.sub(r"(?<![\w.])/(opt|etc)/", rf"{root}/\1/", block).replace("systemctl", "true")


@pytest.mark.slow
def test_the_package_is_installed_as_the_document_shows(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist"], cwd=ROOT, check=True
    )
    env = {**os.environ, "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1"}
    subprocess.run(["sh", "-c", script(INSTALL, tmp_path)], cwd=tmp_path, env=env, check=True, timeout=120)
    [server] = tmp_path.glob("opt/seequeue/lib/python3*/site-packages/seequeue_server")
    assert (server / "app.py").exists() and (tmp_path / "opt/seequeue/bin/seequeue").exists()


@pytest.mark.slow
def test_the_token_of_the_systemd_unit_is_made_and_used_as_the_document_shows(
    serve: Callable[..., App], tmp_path: Path
) -> None:
    need("curl")
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    *set_up, count = script(SYSTEMD, tmp_path).strip().split("\n")
    subprocess.run(["sh", "-c", "\n".join(set_up)], cwd=ROOT, check=True, timeout=60)
    token = tmp_path / "etc/seequeue/token"
    assert token.parent.stat().st_mode & 0o77 == 0
    app = serve(API_TOKEN_FILE=str(token), WEB_CONCURRENCY="1")
    done = subprocess.run(["sh", "-c", at(count, app)], capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout)["success"]


def test_prometheus_scrapes_the_app_of_the_document() -> None:
    [block] = blocks(DOCUMENT, "yaml")
    [job] = yaml.safe_load(block)["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["localhost:5000"]}]
    assert job["authorization"]["credentials_file"] in SYSTEMD


@pytest.fixture
def seequeue_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH on which the command is."""
    return put_on_path(tmp_path_factory.mktemp("bin"))


def call(app: App, path: str, data: Any = None) -> dict[str, Any]:
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(f"{app.url}/api/queue/{path}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


@pytest.mark.slow
def test_a_backup_as_text_is_restored_into_another_app(
    serve: Callable[..., App], tmp_path: Path, seequeue_path: str
) -> None:
    old, new = serve(WEB_CONCURRENCY="1"), serve(WEB_CONCURRENCY="1")
    messages = {"jobs": ["a", "two\nlines", '{"n":1.10}'], "mail": [{"base64": "/wA="}], "jobs.dead": ["died"]}
    for name, texts in messages.items():
        call(old, f"{name}/push", {"messages": texts})
    backup, restore = [block for block in blocks(DOCUMENT, "sh") if "ndjson" in block]
    for app, script in ((old, backup), (new, restore)):
        env = os.environ | {"PATH": seequeue_path, "SEEQUEUE_URL": app.url}
        subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, check=True, capture_output=True, timeout=60)
    for name, texts in messages.items():
        assert call(new, f"{name}/all")["messages"] == texts
    env = os.environ | {"PATH": seequeue_path, "SEEQUEUE_URL": old.url + "/nowhere"}
    failed = subprocess.run(["bash", "-c", f"rm -r backup; {backup}"], cwd=tmp_path, env=env, capture_output=True)
    assert failed.returncode == 1 and list(tmp_path.glob("backup/*.ndjson")) == []
