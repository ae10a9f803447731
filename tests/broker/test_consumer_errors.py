"""A Python consumer waits for what passes, with a warning, and ends with an error for what does not."""

import logging
import threading
from collections.abc import Callable, Iterator

import pytest
import redis

from broker import consumer
from broker.connections.connection import connect
from broker.connections.errors import FAULTS, is_transient
from broker.queue import ReliableQueue
from tests.broker.connections.networks import Refusing
from tests.servers import Store, free_port, running, until
from web.errors import from_redis

PASSING = [
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "MISCONF Errors writing to the AOF file: No space left on device",
    "NOREPLICAS Not enough good replicas to write.",
    "CLUSTERDOWN Hash slot not served",
    "LOADING Redis is loading the dataset in memory",
    "READONLY You can't write against a read only replica.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "ERR max number of clients reached",
    "ERR Error running script (call to f_2f4): @user_script:12: @user_script: 12: -READONLY You can't write.",
]
LASTING = [
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "NOPERM User default has no permissions to run the 'evalsha' command",
    "ERR unknown command 'EVALSHA', with args beginning with: 'BUSY' ",
    "CROSSSLOT Keys in request don't hash to the same slot",
]
STEPS = {"reserve": b"reserve", "wait": b"BLMOVE", "ack": b"ack", "release": b"release", "extend": b"extend"}


@pytest.fixture
def refusing(valkey: Store) -> Iterator[Refusing]:
    with running(Refusing(valkey.port)) as made:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "RETRY_DELAY", 0.01)


class Worker:
    """A consumer in a thread: it takes each message, and leaves the loop at the message `leave`."""

    def __init__(self, queue: ReliableQueue, lease: float = 30) -> None:
        self.seen: list[bytes] = []
        self.error: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        self.thread = threading.Thread(target=self._run, args=(queue, lease), daemon=True)
        self.thread.start()

    def _run(self, queue: ReliableQueue, lease: float) -> None:
        loop = consumer.consume(queue, lease=lease)
        try:
            for message in loop:
                self.seen.append(bytes(message))
                self.go_on.wait(30)
                if message == b"leave":
                    loop.close()  # type: ignore[attr-defined]
                    return
        except redis.RedisError as error:
            self.error = error


@pytest.mark.parametrize(
    ("step", "reply"),
    [*(("reserve", reply) for reply in PASSING), *((step, PASSING[0]) for step in STEPS if step != "reserve")],
    ids=lambda value: value[:30],
)
def test_a_passing_refusal_is_waited_for(
    refusing: Refusing, valkey: Store, name: str, reply: str, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue, raw = ReliableQueue(connect(refusing.url), name), ReliableQueue(valkey.client(), name)
    if step != "wait":
        raw.push(b"leave" if step == "release" else b"a")
    refusing.refuse_next(f"-{reply}", STEPS[step], times=3)  # without a quick retry three lose the lease of a second
    worker = Worker(queue, lease=1 if step == "extend" else 30)
    if step == "extend":
        worker.go_on.clear()
    until(lambda: refusing.has_refused)
    worker.go_on.set()
    if step == "wait":
        raw.push(b"a")
    if step == "release":
        worker.thread.join(20)
        assert (raw.all(), raw.state().counts.reserved) == ([b"leave"], 0)
    else:
        until(lambda: worker.seen == [b"a"] and not raw.state().counts.reserved)
        raw.push(b"leave")
        worker.thread.join(20)
        assert worker.seen == [b"a", b"leave"]
    assert (worker.thread.is_alive(), worker.error) == (False, None)
    code = reply.removeprefix("ERR Error running script (call to f_2f4): @user_script:12: @user_script: 12: -")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert sum(code[:20] in warning for warning in warnings) >= (0 if step == "wait" and code[:3] == "OOM" else 1)


@pytest.mark.parametrize(
    ("step", "reply"),
    [*(("reserve", reply) for reply in LASTING), *((step, LASTING[0]) for step in ("wait", "ack", "release"))],
    ids=lambda value: value[:30],
)
def test_a_lasting_refusal_ends_the_loop(refusing: Refusing, valkey: Store, name: str, reply: str, step: str) -> None:
    queue, raw = ReliableQueue(connect(refusing.url), name), ReliableQueue(valkey.client(), name)
    if step != "wait":
        raw.push(b"leave" if step == "release" else b"a")
    refusing.refuse_next(f"-{reply}", STEPS[step])
    worker = Worker(queue)
    worker.thread.join(20)
    assert not worker.thread.is_alive()
    assert worker.error is not None


def test_what_the_api_tells_as_503_passes_or_needs_repair(valkey: Store) -> None:
    """There is one table: each refusal that passes is a 503 (or a full Redis), and every other one needs somebody."""
    for refusal in FAULTS:
        error = redis.ResponseError(refusal.start + " text")
        answer = from_redis(error)
        assert answer.error == refusal.code and answer.message.startswith(refusal.message)
        if is_transient(error):
            assert answer.status in (503, 507)
        elif answer.status == 503:
            assert answer.error in ("redis_misconfigured", "redis_too_old")


# --- a real server that refuses for a while


def keep_busy(store: Store) -> None:
    store.client().config_set("busy-reply-threshold", 1)
    threading.Thread(target=run_for_ever, args=(store,), daemon=True).start()


def run_for_ever(store: Store) -> None:
    with pytest.raises(redis.RedisError):
        store.client().eval("while true do end", 0)


def lose_primary(store: Store) -> None:
    store.client().config_set("replica-serve-stale-data", "no")
    store.client().replicaof("127.0.0.1", str(free_port()))


State = tuple[Callable[[Store], object], Callable[[Store], object]]
STATES: dict[str, State] = {
    "a replica": (
        lambda store: store.client().replicaof("127.0.0.1", str(free_port())),
        lambda store: store.client().replicaof("NO", "ONE"),
    ),
    "a replica without its primary": (lose_primary, lambda store: store.client().replicaof("NO", "ONE")),
    "too few replicas": (
        lambda store: store.client().config_set("min-replicas-to-write", 1),
        lambda store: store.client().config_set("min-replicas-to-write", 0),
    ),
    "busy with a script": (keep_busy, lambda store: store.client().script_kill()),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["valkey", "redis"])
@pytest.mark.parametrize("state", STATES)
def test_a_consumer_outlasts_a_state_of_the_server(
    own_store: Callable[..., Store], name: str, kind: str, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = own_store(kind)
    queue, raw = ReliableQueue(connect(store.url), name), ReliableQueue(store.client(), name)
    worker = Worker(queue)
    raw.push(b"a")
    until(lambda: worker.seen == [b"a"])
    begin, end = STATES[state]
    begin(store)
    until(lambda: "retrying" in caplog.text)
    end(store)
    until(lambda: can_push(raw))
    raw.push(b"leave")
    worker.thread.join(30)
    assert (worker.seen, worker.error) == ([b"a", b"b", b"leave"], None)


def can_push(queue: ReliableQueue) -> bool:
    try:
        return bool(queue.push(b"b"))
    except redis.RedisError:
        return False
