"""`make bench`: compare the product with its alternatives, and write results.md and two charts.

All servers are started here, on loopback. The candidates of a comparison take turns, a second or two each; a figure is
the median of its rounds. The load generator shares the cores with the servers, so the workers' CPU time per request is
reported too. Only ratios within one run are meaningful.
"""

import contextlib
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from benchmarks import load, results
from benchmarks.jobs import jobs
from benchmarks.measure import (
    CLIENTS,
    FORM,
    JSON,
    LINES,
    ROUND_SECONDS,
    ROUNDS,
    TOKEN,
    Measure,
    Naive,
    Series,
    alternate,
    cpu,
    loaded,
    memory,
    ratio,
    shell,
    timed,
)
from benchmarks.neighbours.rows import neighbours
from benchmarks.results import NO_GOAL, Row, at_least, at_most
from tests.servers import ROOT, App, Store, free_port, running, until


def requests(ours: App, guarded: App, naive: App, store: Store, folder: Path) -> Iterator[Row]:
    """Single pushes and pops."""
    client = store.client()
    print("Single requests, 64 clients", flush=True)

    def push(app: App, path: str, body: bytes = FORM, kind: str = load.FORM, token: str = "") -> Measure:
        return loaded(app, load.request(path, body, kind, token), client.flushall)

    def fill() -> None:
        for key in ("queue:default", "queue:naive"):
            client.delete(key)
            for _ in range(40):
                client.lpush(key, *[b"a message of a few words"] * 1000)

    def pop(app: App, path: str, token: str = "") -> Measure:
        return loaded(app, load.request(path, token=token), fill)

    found = alternate(
        {
            "push": push(ours, "/api/queue/push"),
            "naive push": push(naive, "/push"),
            "push of JSON": push(ours, "/api/queue/push", JSON, "application/json"),
            "naive push of JSON": push(naive, "/push", JSON, "application/json"),
            "push with a token": push(guarded, "/api/queue/push", token=TOKEN),
            "route without Redis": push(naive, "/none"),
            "pop": pop(ours, "/api/queue/pop"),
            "naive pop": pop(naive, "/pop"),
            "pop with a token": pop(guarded, "/api/queue/pop", token=TOKEN),
        }
    )
    goals = [
        ("push", "naive push", 1.4),
        ("push of JSON", "naive push of JSON", 1.4),
        ("pop", "naive pop", 1.4),
        ("push with a token", "push", 0.9),
        ("pop with a token", "pop", 0.9),
        ("push", "route without Redis", 0.85),
    ]
    for one, other, goal in goals:
        value, detail = ratio(found, one, other)
        yield at_least(f"{one} : {other}", value, goal, detail)
    yield from tails(ours, naive, statistics.median(found["naive push"].rates) / 2)
    yield from webdis(found["push"], store, folder)
    client.flushall()


def tails(ours: App, naive: App, rate: float) -> Iterator[Row]:
    """The 99th percentile of a push's latency at half the maximum rate of the naive route."""
    found: dict[str, list[float]] = {"/api/queue/push": [], "/push": []}
    for _ in range(ROUNDS):
        for app, path in ((ours, "/api/queue/push"), (naive, "/push")):
            result = load.run(app.port, load.request(path, FORM), clients=CLIENTS, seconds=ROUND_SECONDS, rate=rate)
            found[path].append(result.percentile(99) * 1000)
    own, other = (statistics.median(times) for times in found.values())
    label = "p99 of push at half the naive top rate : naive push"
    yield at_most(label, own / other, 1.0, f"{own:.1f} : {other:.1f} ms")


def webdis(push: Series, store: Store, folder: Path) -> Iterator[Row]:
    """Webdis, an HTTP server for Redis in C, if the variable WEBDIS names its binary."""
    if not (binary := os.environ.get("WEBDIS")):
        return
    port = free_port()
    config: dict[str, object] = {"redis_host": "127.0.0.1", "redis_port": store.port}
    config |= {"http_host": "127.0.0.1", "http_port": port}
    config |= {"threads": 2, "daemonize": False, "verbosity": 0, "logfile": str(folder / "webdis.log")}
    (folder / "webdis.json").write_text(json.dumps(config))
    with subprocess.Popen([binary, str(folder / "webdis.json")]) as process:
        try:
            until(lambda: accepts(port))
            request = b"GET /LPUSH/queue:webdis/a%20message HTTP/1.1\r\nHost: localhost\r\n\r\n"
            rate = load.run(port, request, clients=CLIENTS, seconds=ROUND_SECONDS).rate
        finally:
            process.terminate()
    yield Row("push : Webdis", statistics.median(push.rates) / rate, NO_GOAL, True, f"{push} : {rate:,.0f}/s")


def accepts(port: int) -> bool:
    """Return whether a server accepts connections."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def streams(ours: App, store: Store, folder: Path) -> Iterator[Row]:
    """Bodies of many messages, in and out, compared with redis-cli."""
    print(f"Streams of {LINES:,} messages", flush=True)
    if not shutil.which("redis-cli"):
        print("  skipped: redis-cli is not installed")
        return
    client, base = store.client(), f"{ours.url}/api/queue"
    texts = [f"message number {number}" for number in range(LINES)]
    objects = [f'{{"id":{number},"name":"user {number}","ok":true}}' for number in range(LINES)]
    (folder / "text").write_text("".join(f"{text}\n" for text in texts))
    (folder / "strings").write_text("".join(f'"{text}"\n' for text in texts))
    (folder / "objects").write_text("".join(f"{text}\n" for text in objects))
    for name, lines in (("pipe-text", texts), ("pipe-objects", objects)):
        with open(folder / name, "wb") as target:
            for line in lines:
                target.write(b"*3\r\n$5\r\nLPUSH\r\n$10\r\nqueue:pipe\r\n$%d\r\n%s\r\n" % (len(line), line.encode()))

    def send(name: str, kind: str, query: str = "") -> Measure:
        command = f"curl -sSf -T {folder / name} -X POST -H 'Content-Type: {kind}' '{base}/push{query}'"
        return timed(command, client.flushall)

    def lists(seconds: float) -> tuple[float, None]:
        client.flushall()
        body = '{"messages":[' + ",".join(f'"{text}"' for text in texts[:1000]) + "]}"
        request = load.request("/api/queue/push", body.encode(), "application/json")
        return 1000 * load.run(ours.port, request, clients=8, seconds=seconds).rate, None

    def pipe(name: str) -> Measure:
        return timed(f"redis-cli -p {store.port} --pipe <{folder / name}", client.flushall)

    found = alternate(
        {
            "text lines": send("text", "text/plain", "?each=line"),
            "redis-cli --pipe": pipe("pipe-text"),
            "NDJSON of strings": send("strings", "application/x-ndjson"),
            "lists of 1,000 texts": lists,
            "NDJSON of small objects": send("objects", "application/x-ndjson"),
            "redis-cli --pipe of objects": pipe("pipe-objects"),
        },
    )
    goals = {"text lines": 1.3, "NDJSON of strings": 1.0, "lists of 1,000 texts": 0.8}
    for name, goal in goals.items():
        value, detail = ratio(found, name, "redis-cli --pipe")
        yield at_least(f"{name} in : redis-cli --pipe", value, goal, detail)
    value, detail = ratio(found, "NDJSON of small objects", "redis-cli --pipe of objects")
    yield at_least("NDJSON of small objects in : redis-cli --pipe", value, 0.6, detail)
    client.flushall()
    for start in range(0, LINES, 1000):
        client.lpush("queue:default", *texts[start : start + 1000])
    found = alternate(
        {
            "JSON": timed(f"curl -sSf {base}/all >{folder / 'out'}"),
            "NDJSON": timed(f"curl -sSf -H 'Accept: application/x-ndjson' {base}/all >{folder / 'out'}"),
            "LRANGE": timed(f"redis-cli -p {store.port} LRANGE queue:default 0 -1 >{folder / 'out'}"),
        },
    )
    for kind, goal in (("JSON", 1.2), ("NDJSON", 1.0)):
        value, detail = ratio(found, kind, "LRANGE")
        yield at_least(f"all out as {kind} : redis-cli LRANGE", value, goal, detail)
    client.flushall()
    with running(App(folder / "memory", REDIS_URL=store.url)) as fresh:
        before = memory(fresh.workers())
        queue = f"{fresh.url}/api/queue"
        for _ in range(1_000_000 // LINES):
            shell(f"curl -sSf -T {folder / 'text'} -X POST -H 'Content-Type: text/plain' '{queue}/push?each=line'")
        for accept in ("application/json", "application/x-ndjson"):
            shell(f"curl -sSf -H 'Accept: {accept}' {queue}/all >{folder / 'out'}")
        grown = (memory(fresh.workers()) - before) / (1 << 20)
    yield at_most("MiB that a process grows while 1,000,000 go in and out", grown, 30)
    client.flushall()


def depth(ours: App, store: Store) -> Iterator[Row]:
    """A push and a pop cost the same at any depth."""
    print("Depth", flush=True)
    client = store.client()
    for name, number in (("shallow", 10), ("deep", 1_000_000)):
        for start in range(0, number, 1000):
            client.lpush(f"queue:{name}", *[b"x"] * min(1000, number - start))
    found = alternate(
        {name: loaded(ours, load.request(f"/api/queue/{name}/push", FORM)) for name in ("deep", "shallow")}
    )
    value, detail = ratio(found, "deep", "shallow")
    yield at_least("push at depth 1,000,000 : at depth 10", value, 0.98, detail)
    client.flushall()


def _open(port: int, head: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(f"{head} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
    return sock


def _until_line(sock: socket.socket, part: bytes) -> None:
    """Read until `part` has arrived."""
    data = b""
    while part not in data:
        block = sock.recv(1 << 16)
        assert block, "the server closed a connection"
        data += block


def latency(ours: App, store: Store) -> Iterator[Row]:
    """The latency from a push to a waiting client, and from a change to an event stream."""
    print("Latency, idle", flush=True)
    client, waits, events = store.client(), [], []
    for number in range(50):
        with _open(ours.port, f"POST /api/queue/wait{number}/pop?wait=20") as sock:
            until(lambda number=number: client.exists(f"{{queue:wait{number}}}:waiters"))  # type: ignore[misc]
            start = time.perf_counter()
            client.lpush(f"queue:wait{number}", "x")
            _until_line(sock, b'"message":"x"')
            waits.append(1000 * (time.perf_counter() - start))
    with _open(ours.port, "GET /api/queue/followed/events") as sock:
        _until_line(sock, b'"count":0')
        for number in range(30):
            time.sleep(0.2)
            start = time.perf_counter()
            client.lpush("queue:followed", "x")
            _until_line(sock, b'"count":%d' % (number + 1))
            events.append(1000 * (time.perf_counter() - start))
    yield at_most("ms from a push to the answer of a waiting pop, median", statistics.median(waits), 2)
    yield at_most("ms from a change to its event, median", statistics.median(events), 20)
    client.flushall()


def fetch(url: str) -> bytes:
    """Return the body at a URL."""
    with urllib.request.urlopen(url) as answer:
        return bytes(answer.read())


def rest(store: Store, folder: Path) -> Iterator[Row]:
    """The cost of event streams and waiting clients while nothing changes."""
    print("At rest", flush=True)
    seconds = 5.0
    for number in (500, 2000):
        with (
            running(App(folder / f"rest{number}", REDIS_URL=store.url, WEB_CONCURRENCY="1")) as app,
            contextlib.ExitStack() as stack,
        ):
            half = number if number == 500 else number // 2
            sockets = [stack.enter_context(_open(app.port, "GET /api/queue/quiet/events")) for _ in range(half)]
            for sock in sockets:
                _until_line(sock, b"data: ")
            for _ in range(number - half):
                stack.enter_context(_open(app.port, "POST /api/queue/waits/pop?wait=55"))
            time.sleep(2)  # until all of them wait
            workers, client = app.workers(), store.client()
            commands, used = client.info("stats")["total_commands_processed"], cpu(workers)
            time.sleep(seconds)
            commands_per_second = (client.info("stats")["total_commands_processed"] - commands - 2) / seconds
            percent = 100 * (cpu(workers) - used) / seconds
            kind = "streams" if number == 500 else "streams and waits"
            if number == 500:
                yield at_most(
                    "Redis commands a second, 500 streams on one quiet queue", max(0.0, commands_per_second), 1
                )
            yield at_most(f"% CPU of a process with {number} {kind} at rest", percent, 2)
            yield Row(f"MiB of a process with {number} {kind}", memory(workers) / (1 << 20), NO_GOAL, True)
    options = {"REDIS_URL": store.url, "WEB_CONCURRENCY": "1", "MAX_BLOCKED_CLIENTS": "5000"}
    with running(App(folder / "rest5000", **options)) as app, contextlib.ExitStack() as stack:
        for _ in range(5000):
            stack.enter_context(_open(app.port, "POST /api/queue/waits/pop?wait=55"))
        until(lambda: b'"waiters":5000' in fetch(f"{app.url}/api/queue/waits/count"), 30)
        yield Row("MiB of a process with 5,000 waiting clients", memory(app.workers()) / (1 << 20), NO_GOAL, True)


def correct(ours: App, store: Store) -> None:
    """Check that nothing is lost or doubled under the same load."""
    print("Correctness under load", flush=True)
    client = store.client()
    result = load.run(ours.port, load.request("/api/queue/push", FORM), clients=CLIENTS, seconds=3)
    pushed = client.llen("queue:default")
    assert 0 <= pushed - result.count <= CLIENTS, (pushed, result.count)
    client.delete("queue:default")
    client.lpush("queue:default", *range(20_000))
    taken, lock = [], threading.Lock()

    def pop() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", ours.port)
        while True:
            connection.request("POST", "/api/queue/pop")
            answer = json.loads(connection.getresponse().read())
            if not answer["success"]:
                return
            with lock:
                taken.append(int(answer["message"]))

    threads = [threading.Thread(target=pop) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(20_000)), "lost or doubled"
    print(f"  {pushed} pushes and {len(taken)} pops: nothing lost, nothing doubled", flush=True)


def embedded(plain: App, folder: Path) -> Iterator[Row]:
    """The embedded server, which writes to disk before it replies."""
    print("Embedded server (appendfsync always)", flush=True)
    with running(App(folder / "embedded")) as app:
        request = load.request("/api/queue/push", FORM)
        found = alternate({"embedded": loaded(app, request), "plain Redis": loaded(plain, request)})
    value, detail = ratio(found, "embedded", "plain Redis")
    yield Row("push, embedded server : plain Redis", value, NO_GOAL, True, detail)


def startup(folder: Path) -> Iterator[Row]:
    """The time from start to first answer, and the size of the installed packages."""
    print("Start", flush=True)
    seconds = []
    for number in range(ROUNDS):
        began = time.perf_counter()
        with running(App(folder / f"start{number}")):
            seconds.append(time.perf_counter() - began)
    yield Row("seconds from start to first answer, embedded server", statistics.median(seconds), NO_GOAL, True)
    yield Row("MiB of installed packages", installed_bytes() / (1 << 20), NO_GOAL, True)


def installed_bytes() -> int:
    """Return the size of the packages in requirements.txt and their dependencies, in bytes."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    wanted, sizes = [Requirement(line) for line in lines if line], dict[str, int]()
    while wanted:
        requirement = wanted.pop()
        extras = [{"extra": extra} for extra in ("", *requirement.extras)]
        with contextlib.suppress(PackageNotFoundError):  # a backport that this Python does not need
            package = distribution(requirement.name)
            if requirement.name.lower() not in sizes:
                files = [path.locate() for path in package.files or []]
                sizes[requirement.name.lower()] = sum(os.stat(file).st_size for file in files if os.path.exists(file))
                needed = map(Requirement, package.requires or [])
                wanted += [one for one in needed if not one.marker or any(map(one.marker.evaluate, extras))]
    return sum(sizes.values())


def main() -> None:
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench")))
        store = stack.enter_context(running(Store("valkey", folder / "store")))
        ours = stack.enter_context(running(App(folder / "ours", REDIS_URL=store.url)))
        guarded = stack.enter_context(running(App(folder / "guarded", REDIS_URL=store.url, API_TOKEN=TOKEN)))
        naive = stack.enter_context(running(Naive(folder / "naive", REDIS_URL=store.url)))
        correct(ours, store)
        rows = [
            *requests(ours, guarded, naive, store, folder),
            *jobs(ours, store),
            *neighbours(ours, store),
            *embedded(ours, folder),
            *streams(ours, store, folder),
            *depth(ours, store),
            *latency(ours, store),
            *rest(store, folder),
            *startup(folder),
        ]
    results.write(rows, time.monotonic() - start)


if __name__ == "__main__":
    main()
