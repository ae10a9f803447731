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


INSTALL, SYSTEMD, CERTIFICATE, NGINX, PROMETHEUS, PACK, UNPACK = [
    block for block in blocks(DOCUMENT, "sh") if re.search("/opt/|/etc/|systemctl", block)
]


def script(block: str, root: Path) -> str:
    """Return a block of commands with the folders of root in another folder, and without the commands of a service."""
    block = re.sub(r"(?<![\w.])/(opt|etc|var)/", rf"{root}/\1/", block).replace(" -g prometheus", "")
    return "set -e\n" + re.sub("systemctl|nginx -t|^curl", "true", block, flags=re.M)


def run(block: str, root: Path) -> None:
    """Run such a script in the checkout."""
    subprocess.run(["sh", "-c", script(block, root)], cwd=ROOT, check=True, capture_output=True, timeout=60)


def settings_of_the_unit(root: Path) -> dict[str, str]:
    """Return what a block has put into the file of the unit's settings."""
    lines = (root / "etc/seequeue/env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


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
    run(SYSTEMD, tmp_path)
    count = SYSTEMD.replace("/etc/", f"{tmp_path}/etc/").strip().split("\n")[-1]
    token = tmp_path / "etc/seequeue/token"
    assert token.parent.stat().st_mode & 0o77 == 0
    app = serve(API_TOKEN_FILE=str(token), WEB_CONCURRENCY="1")
    done = subprocess.run(["sh", "-c", at(count, app)], capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout)["success"]


def test_nginx_and_the_app_have_one_host_name_path_and_certificate(tmp_path: Path) -> None:
    need("openssl")
    for folder in ("etc/ssl/private", "etc/ssl/certs", "etc/nginx/conf.d", "etc/seequeue"):
        (tmp_path / folder).mkdir(parents=True)
    run(CERTIFICATE, tmp_path)
    run(NGINX, tmp_path)
    nginx = (tmp_path / "etc/nginx/conf.d/seequeue.conf").read_text()
    found = settings_of_the_unit(tmp_path)
    assert found.keys() == {"URL_PREFIX", "TRUSTED_PROXIES", "TRUSTED_HOSTS"}
    assert f"server_name {found['TRUSTED_HOSTS']};" in nginx and f"location {found['URL_PREFIX']} " in nginx
    files = re.findall(r"ssl_certificate\w* /(.*);", nginx)
    assert len(files) == 2 and all((tmp_path / file).exists() for file in files)
    certificate = tmp_path / files[0]
    name = f"openssl x509 -noout -checkhost {found['TRUSTED_HOSTS']} -in {certificate}"
    assert b"does match" in subprocess.run(name.split(), check=True, capture_output=True).stdout
    assert f"--cacert /{files[0]} " in NGINX and f"https://{found['TRUSTED_HOSTS']}{found['URL_PREFIX']}/" in NGINX


@pytest.mark.slow
def test_a_backup_of_the_files_is_restored_into_another_service(serve: Callable[..., App], tmp_path: Path) -> None:
    old, new = serve(WEB_CONCURRENCY="1"), serve(WEB_CONCURRENCY="1")
    call(old, "jobs/push", {"messages": ["a", "b"]})
    call(old, "jobs/reserve?lease=600", {})
    old.end()
    new.end()
    for name, app in (("old", old), ("new", new)):
        (tmp_path / name / "var/lib").mkdir(parents=True)
        (tmp_path / name / "var/lib/seequeue").symlink_to(app.folder)
    both = script(PACK, tmp_path / "old") + script(UNPACK, tmp_path / "new")
    subprocess.run(["sh", "-c", both], cwd=tmp_path, check=True, timeout=60)
    new.start()
    found = call(new, "jobs/count")
    assert (found["count"], found["reserved"]) == (1, 1)


@pytest.mark.slow
def test_prometheus_scrapes_the_app_of_the_document(serve: Callable[..., App], tmp_path: Path) -> None:
    [block] = blocks(DOCUMENT, "yaml")
    [job] = yaml.safe_load(block)["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["localhost:5000"]}]
    for folder in ("etc/prometheus", "etc/seequeue"):
        (tmp_path / folder).mkdir(parents=True)
    run(PROMETHEUS, tmp_path)
    token = tmp_path / job["authorization"]["credentials_file"].lstrip("/")
    assert token.stat().st_mode & 0o777 == 0o640
    app = serve(API_TOKEN=TOKEN, WEB_CONCURRENCY="1", **settings_of_the_unit(tmp_path))
    headers = {"Authorization": f"Bearer {token.read_text().strip()}"}
    with urllib.request.urlopen(urllib.request.Request(f"{app.url}/metrics", headers=headers), timeout=20) as answer:
        assert b"queue_redis_up 1" in answer.read()


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
