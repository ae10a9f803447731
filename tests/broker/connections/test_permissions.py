"""What a Redis user lacks is named before messages depend on it, and the user in the documents lacks nothing."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker.changes.notifications import ChangeNotifications
from broker.changes.sweeper import Sweeper
from broker.connections.connection import connect
from broker.connections.errors import LacksPermissions
from broker.connections.health import KEY_COMMANDS, check_server, find_warning
from broker.listing import QueueLister
from broker.queue import ReliableQueue
from tests.broker.helpers import use_every_operation
from tests.servers import ROOT, App, Store, until
from web.errors import from_redis

KEYS = ("~queue:*", "~{queue:*")
CHANNELS = "&{queue:*"
NOTICES = ("publish", "psubscribe", "client|tracking", "scan", "info")
COMMANDS = (*map(str.lower, KEY_COMMANDS), "eval", "exec", "multi")


class User:
    """A user of a server, with a client."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        self.url = store.url.replace("redis://", f"redis://{name}:secret@")

    def allow(self, *rules: str) -> None:
        """Allow what these rules do, and nothing else."""
        self.store.ask("ACL", "SETUSER", self.name, "reset", "on", ">secret", *rules)

    def allow_all_but(self, *removed: str) -> None:
        """Allow what the health checks look for, without some of it."""
        rules = (*KEYS, CHANNELS, *(f"+{command}" for command in ("ping", "time", *COMMANDS, *NOTICES)))
        self.allow(*(rule for rule in rules if rule.lstrip("+") not in removed))

    def denials(self) -> list[bytes]:
        """Return what was refused to this user: commands, keys and channels."""
        return [entry[b"object"] for entry in self.store.ask("ACL", "LOG") if entry[b"username"] == self.name.encode()]


@pytest.fixture(params=["valkey", "redis7"])
def user(request: pytest.FixtureRequest, name: str) -> Iterator[User]:
    made = User(request.getfixturevalue(request.param), name)
    yield made
    made.store.ask("ACL", "DELUSER", name)


def rules_of_the_documents() -> list[str]:
    document = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
    found = re.search(r"^ACL SETUSER seequeue on >PASSWORD (.*)$", document, re.MULTILINE)
    assert found
    return found[1].split()


@pytest.mark.parametrize("rules", ["of the documents", "that are checked"])
def test_nothing_is_refused_to_a_user_with_the_rules(user: User, name: str, rules: str) -> None:
    user.allow(*rules_of_the_documents()) if rules == "of the documents" else user.allow_all_but()
    client = connect(user.url)
    check_server(client)
    assert find_warning(client) == ""
    queue = ReliableQueue(client, name)
    use_every_operation(queue)
    queue.push(*[b"many"] * 3000)
    queue.wait(1)
    assert name in {counts.name for counts in QueueLister(client, "queue:", 5).list_now().queues}
    sweeper = Sweeper(client, "queue:", lambda name: ReliableQueue(client, name))
    sweeper.start()
    notifications = ChangeNotifications(client, "queue:")
    subscription = notifications.subscribe(queue, lambda: None)
    until(lambda: sweeper.is_live and notifications.is_live)
    notifications.unsubscribe(subscription)
    assert set(user.denials()) <= {b"memory|usage"}, "a search only takes smaller chunks without it"


def test_each_missing_command_is_named(user: User) -> None:
    user.allow_all_but()
    client = connect(user.url)
    for command in COMMANDS:
        user.store.ask("ACL", "SETUSER", user.name, f"-{command}")
        with pytest.raises(LacksPermissions) as raised:
            check_server(client)
        error = from_redis(raised.value)
        assert (error.status, error.error) == (503, "redis_misconfigured")
        assert error.message == find_warning(client) == f"The Redis user lacks permissions: {command.upper()}."
        user.store.ask("ACL", "SETUSER", user.name, f"+{command}")


@pytest.mark.parametrize("pattern", KEYS)
def test_missing_keys_are_named(user: User, pattern: str) -> None:
    user.allow_all_but(pattern)
    client = connect(user.url)
    with pytest.raises(LacksPermissions) as raised:
        check_server(client)
    assert str(raised.value) == find_warning(client) == f"The Redis user lacks permissions: keys {pattern[1:]}."


@pytest.mark.parametrize(
    ("removed", "missing"),
    [
        ("publish", ["PUBLISH {queue:*"]),
        ("psubscribe", ["PSUBSCRIBE {queue:*"]),
        (CHANNELS, ["PUBLISH {queue:*", "PSUBSCRIBE {queue:*"]),
        ("client|tracking", ["CLIENT TRACKING"]),
        ("scan", ["SCAN"]),
        ("info", ["INFO"]),
    ],
)
def test_what_is_seen_late_without_a_permission_is_a_warning(user: User, removed: str, missing: list[str]) -> None:
    user.allow_all_but(removed)
    client = connect(user.url)
    check_server(client)
    warning = find_warning(client)
    assert warning.startswith("The Redis user lacks permissions, so ")
    assert warning.endswith(": " + ", ".join(missing) + ".")


def test_the_prefix_and_the_default_queue_of_the_settings_are_checked(user: User) -> None:
    user.allow("~app:jobs", "~{app:jobs}*", "+@all", "&*")
    client = connect(user.url)
    check_server(client, "jobs", "app:")
    for name, prefix in (("jobs", "queue:"), ("others", "app:")):
        with pytest.raises(LacksPermissions) as raised:
            check_server(client, name, prefix)
        assert str(raised.value) == f"The Redis user lacks permissions: keys {prefix}*, keys {{{prefix}*."


@pytest.mark.slow
def test_the_start_and_the_health_of_the_app_name_what_is_missing(user: User, serve: Callable[..., App]) -> None:
    user.allow_all_but("rpop")
    app = serve(REDIS_URL=user.url, WEB_CONCURRENCY="1")
    status, answer = health(app)
    assert (status, answer["error"]) == (503, "redis_misconfigured") and "RPOP" in answer["message"]
    until(lambda: "The Redis user lacks permissions: RPOP." in app.log.read_text())
    user.allow_all_but("publish")
    status, answer = health(app)
    assert status == 200 and "PUBLISH" in answer["warning"]


def health(app: App) -> tuple[int, Any]:
    try:
        answer = urllib.request.urlopen(app.url + "/healthz", timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    return answer.status, json.loads(answer.read())
