"""The pytest plugin: `seequeue_queue`, an empty queue for each test, on a real server that starts once a session."""

import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from seequeue.core.protocol import MAX_BATCH
from seequeue.queue import AsyncQueue, Queue
from seequeue.testing import supervisor

START_TIMEOUT = 20.0  # seconds for the first answer
# The server's environment: neither the REDIS_URL nor the API_TOKEN of the app under test are for it.
PASSED_ON = ("HOME", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "VIRTUAL_ENV")
MISSING = (
    "The server is not installed here: pip install 'seequeue-client[pytest]', "
    "or set SEEQUEUE_TEST_URL to the URL of a server for tests."
)


@pytest.fixture(scope="session")
def seequeue_url() -> Iterator[str]:
    """The URL of a Seequeue server for tests.

    The server is started on a free port, with an embedded Valkey and its data in a temporary folder, once a session;
    with pytest-xdist, once for each of its processes. It ends with pytest, also if that is killed. If SEEQUEUE_TEST_URL
    is set, that server is used instead.
    """
    if url := os.environ.get("SEEQUEUE_TEST_URL"):
        yield url.rstrip("/")
        return
    if not (app := _find_server()):
        pytest.fail(MISSING, pytrace=False)
    folder = tempfile.mkdtemp(prefix="seequeue-")  # not pytest's: the path of a unix socket is short
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    env |= {"PORT": "0", "DATA_DIR": folder, "TMPDIR": folder, "WEB_CONCURRENCY": "1"}
    command = [sys.executable, supervisor.__file__, folder, sys.executable, "-m", "gunicorn"]
    with subprocess.Popen(
        command,
        cwd=app,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        output = process.stdout.read()
        found = re.search(rf"^{supervisor.READY}(\S+)/$", output, re.M)
        if not found:
            pytest.fail(f"The Seequeue server did not start:\n{output}", pytrace=False)
        with Queue(url=found[1], timeout=START_TIMEOUT) as queue:
            queue.queues()
        yield found[1]


def _find_server() -> Path | None:
    """Return the folder of the server's app: that of the checkout which this client is in, or the installed one."""
    for checkout in Path(__file__).parents[4:5]:  # none if this is installed near the root
        if (checkout / "gunicorn.conf.py").exists():
            return checkout
    spec = find_spec("seequeue_server")
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


@pytest.fixture
def seequeue_queue(seequeue_url: str) -> Iterator[Queue]:
    """An empty queue with a name that no other test has. After the test, all its messages are removed."""
    with Queue(f"test-{secrets.token_hex(8)}", url=seequeue_url) as queue:
        yield queue
        _clear(queue)


@pytest.fixture
def seequeue_async_queue(seequeue_queue: Queue, seequeue_url: str) -> AsyncQueue:
    """The queue `seequeue_queue` for asyncio. `async with` closes its connections while their event loop runs."""
    return AsyncQueue(seequeue_queue.name, url=seequeue_url)


def _clear(queue: Queue) -> None:
    """Remove the messages of a queue, in whatever state they are."""
    counts = queue.count()
    if counts.reserved or counts.delayed:
        held = [message.id for message in (*queue.reserved(), *queue.delayed()) if message.id]
        for start in range(0, len(held), MAX_BATCH):
            queue.settle(acks=held[start : start + MAX_BATCH])
    if counts.paused:
        queue.resume()
    if counts.count:
        queue.clear()
    if counts.dead:
        with Queue(f"{queue.name}.dead", url=queue.url) as dead:
            dead.clear()
