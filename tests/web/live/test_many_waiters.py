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

from broker.queue import ReliableQueue
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
def waiting(site: App, name: str, number: int, operation: str = "pop") -> Iterator[list[socket.socket]]:
    """Let `number` clients wait for a message of a queue, or of several, each on a socket of its own."""
    request = f"POST /api/queue/{name}/{operation}?wait=60 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    clients: list[socket.socket] = []
    try:
        for _ in range(number):
            clients.append(socket.create_connection(("127.0.0.1", site.port), timeout=30))
            clients[-1].sendall(request.encode())
        until(lambda: all(waiters(site, each) == number for each in name.split(",")), 60)
        yield clients
    finally:
        for client in clients:
            client.close()


def waiters(site: App, name: str) -> int:
    return int(Api(site.url, name).call("count")[1]["waiters"])


def answers(clients: list[socket.socket], number: int | None = None) -> list[dict[str, object]]:
    """Return the first answer to each of the clients, or to `number` of them."""
    with selectors.DefaultSelector() as selector:
        found: dict[socket.socket, bytes] = dict.fromkeys(clients, b"")
        for client in clients:
            selector.register(client, selectors.EVENT_READ, client)
        while len(selector.get_map()) > (0 if number is None else len(clients) - number):
            ready = selector.select(60)
            assert ready, f"{len(selector.get_map())} clients got no answer"
            for key, _ in ready:
                data = key.data.recv(1 << 16)
                found[key.data] += data
                if not data or found[key.data].endswith(b"}\n"):
                    selector.unregister(key.data)
    return [json.loads(answer.partition(b"\r\n\r\n")[2]) for answer in found.values() if answer]


def test_the_clients_that_still_wait_get_all_messages(site: App, valkey: Store, name: str) -> None:
    queue, texts = RedisQueue(valkey.client(), name), [f"m{n}" for n in range(50)]
    with waiting(site, name, 100) as clients:
        for client in clients[::2]:
            client.close()
        for text in texts:
            queue.push(text.encode())
        assert sorted(str(answer["message"]) for answer in answers(clients[1::2])) == sorted(texts)
    assert queue.count() == 0


@pytest.mark.parametrize("operation", ["pop", "reserve"])
def test_many_wait_on_several_queues_and_each_message_goes_to_one_that_still_waits(
    site: App, valkey: Store, name: str, operation: str
) -> None:
    queues = [ReliableQueue(valkey.client(), f"{name}-{each}") for each in ("urgent", "normal", "low")]
    names = ",".join(queue.name for queue in queues)
    pushed = {(queues[number % 3].name, f"m{number}") for number in range(200)}
    with waiting(site, names, 260, operation) as clients:
        for client in clients[::5] + clients[:8]:  # the first in line too
            client.close()
        pushing = [threading.Thread(target=push_all, args=[queue, pushed]) for queue in queues]
        for thread in pushing:
            thread.start()
        left = [client for client in clients if client.fileno() >= 0]
        assert len(left) == 202
        found = [(str(answer["queue"]), str(answer["message"])) for answer in answers(left, 200)]
        assert Counter(found) == dict.fromkeys(pushed, 1)
        until(lambda: [waiters(site, queue.name) for queue in queues] == [2, 2, 2])
        for thread in pushing:
            thread.join()
    assert [queue.count() for queue in queues] == [0, 0, 0]
    assert sum(queue.state().counts.reserved for queue in queues) == (200 if operation == "reserve" else 0)
    until(lambda: [waiters(site, queue.name) for queue in queues] == [0, 0, 0])


def push_all(queue: ReliableQueue, messages: set[tuple[str, str]]) -> None:
    for name, text in messages:
        if name == queue.name:
            queue.push(text.encode())


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
