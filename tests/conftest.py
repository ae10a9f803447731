"""Shared fixtures: real servers, one of each kind for the whole run, and a queue name for each test."""

import functools
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import settings as hypothesis_settings

from app import create_app
from broker.connections.connection import connect
from broker.queue import ReliableQueue
from settings import Settings
from tests.engines import Cluster, SentinelSet
from tests.npm import Project
from tests.servers import BINARIES, App, Proxy, Scripted, Store, running
from web.services import Services

_numbers = itertools.count()

hypothesis_settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
hypothesis_settings.load_profile("untimed")

# Fixtures and parameters that need a server other than one Valkey.
OTHER_SERVERS = {"redis", "redis6", "redis7", "redis8", "redis_site", "cluster", "sentinels"}


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Mark the tests on other servers slow, so that `make quick` starts Valkey alone."""
    for item in items:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if OTHER_SERVERS.intersection([*item.fixturenames, *filter(lambda one: isinstance(one, str), parameters)]):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A queue name used by no other test."""
    return f"q{next(_numbers)}"


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A short path for the data of servers: the path of a unix socket is limited to about 100 characters."""
    with tempfile.TemporaryDirectory(prefix="q") as made:
        yield Path(made)


def need(kind: str) -> None:
    """Skip the test if a server is not installed; in CI fail, unless no package provides it for this Python."""
    if not BINARIES[kind]:
        assert kind in ("redis6", "redis8") or not os.environ.get("CI"), f"{kind}-server is not installed"
        pytest.skip(f"{kind}-server is not installed")


@pytest.fixture(scope="session")
def valkey(folder: Path) -> Iterator[Store]:
    """The Valkey embedded in the app, on TCP."""
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
    """Redis 6.2, which does not understand the `#!lua` line of scripts."""
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
    """A Valkey Cluster of three primaries. Tests must not change it."""
    with running(Cluster("valkey", folder / "cluster")) as made:
        yield made


@pytest.fixture(scope="session")
def sentinels(folder: Path) -> Iterator[SentinelSet]:
    """A primary, a replica and three Sentinels, each kind with its own password. They must not fail over."""
    with running(SentinelSet("valkey", folder / "sentinels", password="secret")) as made:
        yield made


@pytest.fixture(params=["valkey", "redis7", "redis6", "redis8", "cluster", "sentinels"])
def engine(request: pytest.FixtureRequest) -> Any:
    """Each kind of server that a REDIS_URL can name; it has a `url`."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def stopping_apps(folder: Path) -> Iterator[list[App]]:
    """The apps that no test needs any more: a graceful stop takes a second, so only the end of the run waits for it."""
    apps: list[App] = []
    yield apps
    for app in apps:
        app.wait()


@pytest.fixture(scope="session")
def site(valkey: Store, folder: Path, stopping_apps: list[App]) -> Iterator[App]:
    """The app under gunicorn with two workers, on the shared Valkey."""
    app = App(folder / "site", REDIS_URL=valkey.url)
    yield app
    app.stop()
    stopping_apps.append(app)


@pytest.fixture
def serve(folder: Path, stopping_apps: list[App]) -> Iterator[Callable[..., App]]:
    """Start an app for this test alone: serve(REDIS_URL=...); without REDIS_URL on its own embedded server."""
    started: list[App] = []

    def start(redirect: str = "", **env: Any) -> App:
        started.append(App(folder / f"app{next(_numbers)}", redirect, **env))
        return started[-1]

    yield start
    for app in started:
        app.stop()
    stopping_apps += started


@pytest.fixture
def own_store(folder: Path) -> Iterator[Callable[..., Store]]:
    """Start a store for this test alone, to be killed or limited: own_store("valkey", "--maxmemory", "3mb")."""
    started: list[Store] = []

    def start(kind: str = "valkey", *options: str) -> Store:
        need(kind)
        started.append(Store(kind, folder / f"store{next(_numbers)}", *options))
        return started[-1]

    yield start
    for store in started:
        store.end()


@pytest.fixture(params=["valkey", "redis"])
def backend(request: pytest.FixtureRequest) -> Any:
    """A client of Valkey and of Redis."""
    store: Store = request.getfixturevalue({"valkey": "valkey", "redis": "redis7"}[request.param])
    return store.client()


@pytest.fixture
def database(valkey: Store) -> Any:
    """A client of an empty database of the shared Valkey, for tests that use the default queue or compare all keys."""
    client = connect(valkey.url.removesuffix("/0") + "/1")
    client.flushdb()
    return client


@pytest.fixture
def proxy(valkey: Store) -> Iterator[Proxy]:
    """A proxy in front of the shared Valkey, which loses commands and replies as a test orders."""
    with running(Proxy(valkey.port)) as made:
        yield made


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A folder in which the npm package is installed, as built from the checkout."""
    return Project(tmp_path_factory.mktemp("npm"))


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    """Start a store that gives the same reply to every command: scripted(b"-LOADING ...")."""
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
    """Make an app with given settings on a Redis client: app_on(Settings(), client).

    Creating an app takes longer than most tests, as it compiles all routes. So apps with equal settings share one
    instance, with new Services, which hold all of an app's state, for each call.
    """
    made = functools.cache(create_app)

    def on(settings: Settings, client: Any) -> Flask:
        app = made(settings)
        app.extensions["queue"] = app.request_class.services = Services(settings, client)  # type: ignore[attr-defined]
        return app

    return on


class Api:
    """The routes of one queue, called through Flask's test client."""

    def __init__(self, app_on: AppOn, settings: Settings, client: Any, name: str, path: str) -> None:
        self.client, self.name, self.path = client, name, path
        self.app_on, self.app = app_on, app_on(settings, client)
        self.http: Any = self.app.test_client()
        self.queue = ReliableQueue(client, name)
        self.key = self.queue.key

    def get(self, operation: str, **request: Any) -> Any:
        return self.http.get(f"{self.path}/{operation}", **request)

    def post(self, operation: str, data: Any = None, kind: str | None = None, **request: Any) -> Any:
        """Send a body with a content type; json=... sends JSON."""
        return self.http.post(f"{self.path}/{operation}", data=data, content_type=kind, **request)

    def messages(self) -> list[bytes]:
        """Return the messages of the queue in Redis, next to be popped first."""
        found: list[bytes] = self.client.lrange(self.key, 0, -1)
        return found[::-1]

    def with_settings(self, **settings: Any) -> "Api":
        """Return the routes of the same queue on the same client in an app with other settings."""
        return Api(self.app_on, Settings(queue_name=self.name, **settings), self.client, self.name, self.path)

    def of(self, name: str) -> "Api":
        """Return the routes of another queue on the same client."""
        return Api(self.app_on, NAMED, self.client, name, f"/api/queue/{name}")


DEFAULT, NAMED = Settings(), Settings(queue_name="another")


@pytest.fixture
def api(app_on: AppOn, database: Any) -> Api:
    """The routes of an empty queue."""
    return Api(app_on, NAMED, database, "jobs", "/api/queue/jobs")


@pytest.fixture
def default_api(app_on: AppOn, database: Any) -> Api:
    """The routes of the default queue, which is empty."""
    return Api(app_on, DEFAULT, database, "default", "/api/queue")


@pytest.fixture
def named_api(api: Api) -> Api:
    return api


@pytest.fixture
def api_on(app_on: AppOn, name: str) -> Callable[[str], Api]:
    """Make the routes of a queue on the store at a URL."""

    def on(url: str) -> Api:
        return Api(app_on, Settings(redis_url=url), connect(url), name, f"/api/queue/{name}")

    return on
