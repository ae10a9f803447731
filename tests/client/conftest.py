"""Fixtures of the client: queues of an app under gunicorn, and a proxy that loses answers."""

from collections.abc import Iterator

import pytest
from seequeue import Queue

from tests.client.helpers import HttpProxy
from tests.servers import App, running


@pytest.fixture
def queue(site: App, name: str) -> Iterator[Queue]:
    """An empty queue of the shared app."""
    with Queue(name, url=site.url) as made:
        yield made


@pytest.fixture
def front(site: App) -> Iterator[HttpProxy]:
    """A proxy in front of the shared app, which loses answers as a test orders."""
    with running(HttpProxy(site.port)) as made:
        yield made


@pytest.fixture
def flaky(front: HttpProxy, name: str) -> Iterator[Queue]:
    """The queue `name`, reached through the proxy `front`."""
    with Queue(name, url=front.url, timeout=20) as made:
        yield made
