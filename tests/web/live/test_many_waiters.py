"""Many clients wait at once: each gets one message, one that has disconnected none, and Redis has few connections."""

import contextlib
import json
import resource
import selectors
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from RedisQueue import RedisQueue
from tests.ledger import Api
from tests.servers import App, Store, until

MANY = 2000

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def enough_sockets() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 2 * MANY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * MANY if hard < 0 else min(2 * MANY, hard), hard))


@contextlib.contextmanager
def waiting(site: App, name: str, number: int, verb: str = "pop") -> Iterator[list[socket.socket]]:
    """Let `number` clients wait for a message of a queue, each on a socket of its own."""
    request = f"POST /api/queue/{name}/{verb}?wait=60 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    clients: list[socket.socket] = []
    try:
        for _ in range(number):
            clients.append(socket.create_connection(("127.0.0.1", site.port), timeout=30))
            clients[-1].sendall(request.encode())
        until(lambda: waiters(site, name) == number, 60)
        yield clients
    finally:
        for client in clients:
            client.close()


def waiters(site: App, name: str) -> int:
    return int(Api(site.url, name).call("count")[1]["waiters"])


def answers(clients: list[socket.socket], seconds: float = 60) -> list[dict[str, object]]:
    """Return the first answer to each of the clients."""
    with selectors.DefaultSelector() as selector:
        found: dict[socket.socket, bytes] = dict.fromkeys(clients, b"")
        for client in clients:
            selector.register(client, selectors.EVENT_READ, client)
        while selector.get_map():
            ready = selector.select(seconds)
            assert ready, f"{len(selector.get_map())} clients got no answer"
            for key, _ in ready:
                data = key.data.recv(1 << 16)
                found[key.data] += data
                if not data or found[key.data].endswith(b"}\n"):
                    selector.unregister(key.data)
    return [json.loads(answer.partition(b"\r\n\r\n")[2]) for answer in found.values()]


def test_the_clients_that_still_wait_get_all_messages(site: App, valkey: Store, name: str) -> None:
    queue, texts = RedisQueue(valkey.client(), name), [f"m{n}" for n in range(50)]
    with waiting(site, name, 100) as clients:
        for client in clients[::2]:
            client.close()
        for text in texts:
            queue.push(text.encode())
        assert sorted(str(answer["message"]) for answer in answers(clients[1::2])) == sorted(texts)
    assert queue.count() == 0


def test_thousands_wait_on_two_workers_and_each_gets_one_message(
    serve: Callable[..., App], own_store: Callable[..., Store], name: str
) -> None:
    store = own_store()  # nobody else's connections are counted
    site, redis = serve(REDIS_URL=store.url), store.client()
    connections: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            connections.append(len(redis.client_list()))

    texts = [f"m{n}" for n in range(MANY)]
    with waiting(site, name, MANY) as clients:
        assert len(site.workers()) == 2
        assert len(redis.client_list()) < 30
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            pusher = Api(site.url, name)
            for text in texts:
                assert pusher.call("push", message=text)[0] == 200
            found = Counter(str(answer["message"]) for answer in answers(clients))
        finally:
            done.set()
            watcher.join()
        until(lambda: waiters(site, name) == 0)
    print(f"at most {max(connections)} connections")
    assert found == dict.fromkeys(texts, 1)
    assert max(connections) < 30
    assert RedisQueue(redis, name).count() == 0
