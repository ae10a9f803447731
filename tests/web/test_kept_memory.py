"""Data that stays in Redis for a while, and the documented commands that free it."""

import re
import subprocess
from typing import Any

import pytest

from tests.console import need
from tests.servers import ROOT, App, Store

REFERENCE = (ROOT / "docs/api.md").read_text(encoding="utf-8")
SECTION = REFERENCE.partition("## Memory that is kept\n")[2].partition("\n## ")[0]
FREE_CLEARED, FREE_ANSWERS, FREE_RESULTS = re.findall(r"^```sh\n(.*?)```$", SECTION, re.M | re.S)
OTHERS = "queue:jobs2", "{queue:other}:cleared:a", "{queue:other}:answers:a", "{queue:jobs}:cleared2:a"


def run(command: str, store: Store) -> None:
    """Run a documented command against a store."""
    need("redis-cli")
    command = command.replace("redis-cli", f"redis-cli -p {store.port}")
    subprocess.run(["bash", "-c", "set -o pipefail; " + command], check=True, capture_output=True, timeout=60)


@pytest.fixture
def jobs(valkey: Store) -> Any:
    """A client of a store in which other queues than `jobs` have kept data too."""
    client = valkey.client()
    client.flushdb()
    for key in OTHERS:
        client.lpush(key, "x")
    return client


def post(site: App, operation: str, *options: str) -> None:
    command = ["curl", "-fsS", "-X", "POST", f"{site.url}/api/queue/jobs/{operation}", *options]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def test_the_documented_command_frees_cleared_messages(site: App, valkey: Store, jobs: Any) -> None:
    for _ in range(2):
        post(site, "push", "-d", "message=x")
        post(site, "clear")
    post(site, "push", "-d", "message=kept", "-H", "Idempotency-Key: a")
    assert len(jobs.keys("{queue:jobs}:cleared:*")) == 2
    run(FREE_CLEARED, valkey)
    assert jobs.keys("{queue:jobs}:cleared:*") == []
    assert jobs.lrange("queue:jobs", 0, -1) == [b"kept"]
    assert jobs.keys("{queue:jobs}:answers:*")
    assert all(jobs.exists(key) for key in OTHERS)


def test_the_documented_command_frees_kept_answers(site: App, valkey: Store, jobs: Any) -> None:
    post(site, "push", "-d", "message=x", "-H", "Idempotency-Key: a")
    post(site, "push", "-d", "message=y")
    post(site, "pop", "-H", "Idempotency-Key: b")
    assert jobs.keys("{queue:jobs}:answers:*")
    run(FREE_ANSWERS, valkey)
    assert jobs.keys("{queue:jobs}:answers:*") == []
    assert jobs.lrange("queue:jobs", 0, -1) == [b"y"]
    assert all(jobs.exists(key) for key in OTHERS)


def test_the_documented_command_frees_results(site: App, valkey: Store, jobs: Any) -> None:
    post(site, "result", "-d", "job=a", "-d", "result=x")
    post(site, "push", "-d", "message=y")
    assert len(jobs.keys("{queue:jobs}:result:*")) == 1
    run(FREE_RESULTS, valkey)
    assert jobs.keys("{queue:jobs}:result:*") == []
    assert all(jobs.exists(key) for key in OTHERS)


def test_the_documented_commands_free_the_data_of_all_queues(site: App, valkey: Store, jobs: Any) -> None:
    post(site, "push", "-d", "message=x", "-H", "Idempotency-Key: a")
    post(site, "clear")
    for command in (FREE_CLEARED, FREE_ANSWERS):
        run(command.replace("{queue:jobs}", "{queue:*}"), valkey)
    assert sorted(jobs.keys()) == [b"queue:jobs2", b"{queue:jobs}:cleared2:a"]


def test_the_documented_commands_succeed_with_nothing_to_free(valkey: Store, jobs: Any) -> None:
    run(FREE_CLEARED, valkey)
    run(FREE_ANSWERS, valkey)
