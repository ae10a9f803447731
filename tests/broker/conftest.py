"""The queue that a test works on."""

from typing import Any

import pytest

from broker.queue import ReliableQueue
from tests.servers import Store


@pytest.fixture(params=["valkey", "redis7"])
def backend(request: pytest.FixtureRequest) -> Any:
    """A client of each real server in turn: what is tested here are scripts, which fakeredis runs slowly."""
    store: Store = request.getfixturevalue(request.param)
    return store.client()


@pytest.fixture
def queue(backend: Any, name: str) -> ReliableQueue:
    """An empty queue on each server in turn."""
    return ReliableQueue(backend, name)
