"""What the tests share: real servers, one for the whole run each, and a queue name for each test."""

import functools
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app import create_app
from broker.connections.connection import connect
from broker.queue import ReliableQueue
from settings import Settings
from tests.engines import Cluster, SentinelSet
from tests.servers import BINARIES, App, FakeRedis, Proxy, Scripted, Store, running
from web.services import Services

_numbers = itertools.count()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A queue name that no other test uses."""
    return f"q{next(_numbers)}"


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A short path for the data of servers (a unix socket's path has a limit)."""
    with tempfile.TemporaryDirectory(prefix="q") as made:
        yield Path(made)


def need(kind: str) -> None:
    """Skip where a server is not installed; in CI that is a failure, unless no package carries it for this Python."""
    if not BINARIES[kind]:
        assert kind in ("redis6", "redis8") or not os.environ.get("CI"), f"{kind}-server is not installed"
        pytest.skip(f"{kind}-server is not installed")


@pytest.fixture(scope="session")
def valkey(folder: Path) -> Iterator[Store]:
    """The Valkey that the app embeds, on TCP."""
    with running(Store("valkey", folder / "valkey")) as store:
        yield store


@pytest.fixture(scope="session")
def redis7(folder: Path) -> Iterator[Store]:
    """Debian's redis-server."""
    need("redis")
    with running(Store("redis", folder / "redis")) as store:
        yield store


@pytest.fixture(scope="session")
def redis6(folder: Path) -> Iterator[Store]:
    """Redis 6.2, which does not know the first line of scripts."""
    need("redis6")
    with running(Store("redis6", folder / "redis6")) as store:
        yield store


@pytest.fixture(scope="session")
def redis8(folder: Path) -> Iterator[Store]:
    """Redis 8.2."""
    need("redis8")
    with running(Store("redis8", folder / "redis8")) as store:
        yield store


@pytest.fixture(scope="session")
def cluster(folder: Path) -> Iterator[Cluster]:
    """A Valkey Cluster of three primaries. It must not be changed."""
    with running(Cluster("valkey", folder / "cluster")) as made:
        yield made


@pytest.fixture(scope="session")
def sentinels(folder: Path) -> Iterator[SentinelSet]:
    """Two Valkeys and three Sentinels, each kind with a password of its own. They must not fail over."""
    with running(SentinelSet("valkey", folder / "sentinels", password="secret")) as made:
        yield made


@pytest.fixture(params=["valkey", "redis7", "redis6", "redis8", "cluster", "sentinels"])
def engine(request: pytest.FixtureRequest) -> Any:
    """Everything that a REDIS_URL can lead to, each in turn; it has a `url`."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def site(valkey: Store, folder: Path) -> Iterator[App]:
    """The app under gunicorn with two workers, on the shared Valkey."""
    with running(App(folder / "site", REDIS_URL=valkey.url)) as app:
        yield app


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., App]]:
    """Start apps of a test's own: serve(REDIS_URL=...); without REDIS_URL on an embedded server of its own."""
    started: list[App] = []

    def start(**env: Any) -> App:
        started.append(App(folder / f"app{next(_numbers)}", **env))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.fixture
def own_store(folder: Path) -> Iterator[Callable[..., Store]]:
    """Start stores of a test's own, to be killed or starved: own_store("valkey", "--maxmemory", "3mb")."""
    started: list[Store] = []

    def start(kind: str = "valkey", *options: str) -> Store:
        need(kind)
        started.append(Store(kind, folder / f"store{next(_numbers)}", *options))
        return started[-1]

    yield start
    for store in started:
        store.end()


@pytest.fixture(params=["fakeredis", "valkey", "redis"])
def backend(request: pytest.FixtureRequest) -> Any:
    """A client that is handed to a queue, on each kind of server in turn."""
    if request.param == "fakeredis":
        return FakeRedis()
    store: Store = request.getfixturevalue({"valkey": "valkey", "redis": "redis7"}[request.param])
    return store.client()


@pytest.fixture
def proxy(valkey: Store) -> Iterator[Proxy]:
    """A proxy in front of the shared Valkey, which loses what a test says."""
    with running(Proxy(valkey.port)) as made:
        yield made


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    """Start stores that give one answer: scripted(b"-LOADING ...")."""
    started: list[Scripted] = []

    def start(reply: bytes, **more: bytes) -> Scripted:
        started.append(Scripted(reply, **more))
        return started[-1]

    yield start
    for store in started:
        store.end()


AppOn = Callable[[Settings, Any], Flask]


@pytest.fixture(scope="session")
def app_on() -> AppOn:
    """Make apps for settings, each on a Redis client: app_on(Settings(), FakeRedis()).

    Compiling its routes takes an app longer than most tests do. So apps with equal settings are one, which gets a new
    Services for each test: that is all that an app keeps.
    """
    made = functools.cache(create_app)

    def on(settings: Settings, client: Any) -> Flask:
        app = made(settings)
        app.extensions["queue"] = app.request_class.services = Services(settings, client)  # type: ignore[attr-defined]
        return app

    return on


class Api:
    """The routes of one queue, through Flask's test client, on a Redis client of the test's choice."""

    def __init__(self, app_on: AppOn, settings: Settings, client: Any, name: str, path: str) -> None:
        self.client, self.name, self.path = client, name, path
        self.app_on, self.app = app_on, app_on(settings, client)
        self.http: Any = self.app.test_client()
        self.queue = ReliableQueue(client, name)
        self.key = self.queue.key

    def get(self, verb: str, **request: Any) -> Any:
        return self.http.get(f"{self.path}/{verb}", **request)

    def post(self, verb: str, data: Any = None, kind: str | None = None, **request: Any) -> Any:
        """Send a body of a content type; json=... sends JSON."""
        return self.http.post(f"{self.path}/{verb}", data=data, content_type=kind, **request)

    def messages(self) -> list[bytes]:
        """Return what is in Redis, next to be popped first."""
        found: list[bytes] = self.client.lrange(self.key, 0, -1)
        return found[::-1]

    def with_settings(self, **settings: Any) -> "Api":
        """Return the routes of the same queue on the same client in an app with other settings."""
        return Api(self.app_on, Settings(queue_name=self.name, **settings), self.client, self.name, self.path)

    def of(self, name: str) -> "Api":
        """Return the routes of another queue on the same client."""
        return Api(self.app_on, NAMED, self.client, name, f"/api/queue/{name}")


DEFAULT, NAMED = Settings(), Settings(queue_name="another")


@pytest.fixture(params=["default", "named"])
def api(request: pytest.FixtureRequest, app_on: AppOn) -> Api:
    """The routes of an empty queue on fakeredis: those of the default queue, then those with a name."""
    if request.param == "named":
        made: Api = request.getfixturevalue("named_api")
        return made
    return Api(app_on, DEFAULT, FakeRedis(), "default", "/api/queue")


@pytest.fixture
def named_api(app_on: AppOn) -> Api:
    """The routes of an empty queue on fakeredis, for what does not depend on how the queue is addressed."""
    return Api(app_on, NAMED, FakeRedis(), "jobs", "/api/queue/jobs")


@pytest.fixture
def api_on(app_on: AppOn, name: str) -> Callable[[str], Api]:
    """The routes of a queue on the store at a URL."""

    def on(url: str) -> Api:
        return Api(app_on, Settings(redis_url=url), connect(url), name, f"/api/queue/{name}")

    return on
