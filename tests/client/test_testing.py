"""The pytest plugin, in the tests of a project that uses it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from seequeue import Queue
from seequeue.testing import supervisor

from tests.servers import ROOT, App, until

pytest_plugins = ("pytester",)

CLIENT = ROOT / "client" / "python"
TESTS = """
    import pytest

    def test_a_message(seequeue_queue, seequeue_url):
        seequeue_queue.push({"order": 17})
        assert seequeue_queue.reserve().json() == {"order": 17}
        print("URL", seequeue_url)

    @pytest.mark.anyio
    async def test_both_queues_of_a_test_are_the_same(seequeue_async_queue, seequeue_queue):
        async with seequeue_async_queue as queue:
            await queue.push("left over")
        assert seequeue_queue.count().count == 1

    def test_no_other_test_has_left_anything(seequeue_queue):
        assert seequeue_queue.queues() == []

    @pytest.fixture
    def anyio_backend():
        return "asyncio"
"""

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run pytest with this client and few plugins in a folder of its own: run("-n2", PYTHONPATH=...)."""

    def run(*arguments: str, **env: str) -> pytest.RunResult:
        defaults = {"PYTHONPATH": str(CLIENT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        for name, value in {**defaults, **env}.items():
            monkeypatch.setenv(name, value)
        plugins = ["anyio", "xdist", "seequeue.testing"]
        return pytester.runpytest_subprocess(*(part for name in plugins for part in ("-p", name)), "-rP", *arguments)

    return run


def urls(output: str) -> set[str]:
    """Return the URLs of the servers that tests have printed."""
    return set(re.findall(r"^URL (\S+)", output, re.M))


def is_served(url: str) -> bool:
    """Return whether something answers at a URL."""
    try:
        urllib.request.urlopen(f"{url}/livez", timeout=20).close()
    except OSError:
        return False
    return True


@pytest.mark.slow
def test_each_test_gets_an_empty_queue_on_a_server_that_is_gone_at_the_end(
    pytester: pytest.Pytester, run: Run, tmp_path: Path
) -> None:
    """The settings of the app under test are not for this server."""
    pytester.makepyfile(TESTS)
    result = run("-W", "error", TMPDIR=str(tmp_path), REDIS_URL="redis://localhost:1", API_TOKEN="a-token-of-the-app")
    result.assert_outcomes(passed=3)
    [url] = urls(result.stdout.str())
    assert not is_served(url)
    assert not list(tmp_path.glob("seequeue-*"))


@pytest.mark.slow
def test_each_process_of_xdist_has_a_server_of_its_own(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(TESTS)
    result = run("-n2", "--dist", "each")
    result.assert_outcomes(passed=6)
    assert len(urls(result.stdout.str())) == 2


@pytest.mark.slow
def test_the_server_ends_with_a_killed_pytest(pytester: pytest.Pytester, tmp_path: Path) -> None:
    test = "import time\ndef test_it(seequeue_url):\n    print('\\nURL', seequeue_url, flush=True)\n    time.sleep(600)"
    pytester.makepyfile(test)
    command = [sys.executable, "-m", "pytest", "-s", "-p", "seequeue.testing"]
    env = {**os.environ, "PYTHONPATH": str(CLIENT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout
            [url] = next(found for line in process.stdout if (found := urls(line)))
            assert is_served(url)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    until(lambda: not is_served(url))
    until(lambda: not list(tmp_path.glob("seequeue-*")))


def test_the_server_ends_with_a_pytest_that_is_killed_during_the_start(tmp_path: Path) -> None:
    server = f"echo starting; echo '{supervisor.READY}http://localhost/'; exec sleep 600"
    command = [sys.executable, supervisor.__file__, str(tmp_path), "sh", "-c", server]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        process.stdout.close()
        process.stdin.close()
        assert process.wait(60) == 0
    assert not tmp_path.exists()


def test_a_server_of_the_developer_is_used_and_left_as_it_was(
    pytester: pytest.Pytester, run: Run, site: App, name: str
) -> None:
    pytester.makepyfile("""
        def test_it(seequeue_queue, seequeue_url):
            print("URL", seequeue_url)
            seequeue_queue.push_many(["reserved", "rejected", "waiting"])
            seequeue_queue.reserve()
            seequeue_queue.reserve().reject()
            seequeue_queue.push("delayed", delay=60)
            seequeue_queue.pause()
    """)
    with Queue(name, url=site.url) as queue:
        queue.push("of the developer")
        before = {one.name for one in queue.queues()}
        result = run(SEEQUEUE_TEST_URL=site.url)
        result.assert_outcomes(passed=1)
        assert urls(result.stdout.str()) == {site.url}
        assert {one.name for one in queue.queues()} == before
        assert queue.pop() == b"of the developer"
    assert is_served(site.url)


@pytest.mark.parametrize(
    ("config", "reason"),
    [("", "*pip install 'seequeue-client[[]pytest]'*SEEQUEUE_TEST_URL*"), ("raise SystemExit('no disk')", "*no disk*")],
)
def test_a_server_that_is_missing_or_does_not_start_is_a_clear_error(
    pytester: pytest.Pytester, run: Run, config: str, reason: str
) -> None:
    place = pytester.path / "checkout"
    shutil.copytree(CLIENT / "seequeue", place / "client" / "python" / "seequeue")
    if config:
        (place / "gunicorn.conf.py").write_text(config)
    pytester.makepyfile("def test_it(seequeue_queue): pass")
    result = run(PYTHONPATH=str(place / "client" / "python"))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([reason])


@pytest.mark.slow
def test_the_installed_plugin_starts_the_installed_server(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tree in (ROOT, CLIENT):
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
        subprocess.run(command, cwd=tree, capture_output=True, check=True)
    for wheel in tmp_path.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_subprocess("-p", "no:schemathesis")
    result.assert_outcomes(passed=3)
