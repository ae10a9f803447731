"""The queue that a test of the broker works on."""

from typing import Any

import pytest

from broker.queue import ReliableQueue


@pytest.fixture
def queue(backend: Any, name: str) -> ReliableQueue:
    """An empty queue, on each kind of server in turn."""
    return ReliableQueue(backend, name)
