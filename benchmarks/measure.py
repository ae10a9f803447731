"""How `make bench` measures: rounds of alternating candidates, the CPU time and the memory of processes."""

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import load
from tests.servers import ROOT, App, until

ROUNDS = 9
ROUND_SECONDS = 1.0
CLIENTS = 64
LINES = 500_000  # messages in a stream
TOKEN = "benchmark-token"
FORM, JSON = b"message=a+message+of+a+few+words", b'{"message": "a message of a few words"}'
TICKS = os.sysconf("SC_CLK_TCK")


class Naive(App):
    """The naive routes under the same gunicorn as the product."""

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "app.log"
        command = [sys.executable, "-m", "gunicorn", "-c", "/dev/null", "-k", "gevent", "-w", "2"]
        command += ["-b", f"127.0.0.1:{self.port}", "--no-control-socket", "benchmarks.naive:app"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, env=self.env, cwd=ROOT, stdout=log, stderr=log)
        until(self.answers, 60)


def cpu(pids: list[int]) -> float:
    """Return the CPU time that processes have used, in seconds."""
    total = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


def memory(pids: list[int]) -> int:
    """Return the largest resident size that any of the processes has had, in bytes."""
    sizes = [re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()) for pid in pids]
    return max(int(found[1]) * 1024 for found in sizes if found)


@dataclass
class Series:
    """The measurements of the rounds, in order."""

    rates: list[float] = field(default_factory=list)  # per second
    cpus: list[float] = field(default_factory=list)  # CPU time of the workers for one, in microseconds

    def __str__(self) -> str:
        middle = statistics.median(self.rates)
        spread = 100 * (max(self.rates) - min(self.rates)) / middle
        cpu_time = f", {statistics.median(self.cpus):.1f} us CPU" if self.cpus else ""
        return f"{middle:,.0f}/s{cpu_time} (spread {spread:.0f} %)"


Measure = Callable[[float], tuple[float, float | None]]  # seconds to run -> rate per second, CPU microseconds for one


def alternate(measures: dict[str, Measure]) -> dict[str, Series]:
    """Measure one after the other, in each of ROUNDS rounds."""
    found = {name: Series() for name in measures}
    for round_ in range(ROUNDS + 1):
        for name, measure in measures.items():
            rate, used = measure(ROUND_SECONDS if round_ else 0.3)
            if round_:  # the first warms up
                found[name].rates.append(rate)
                if used is not None:
                    found[name].cpus.append(used)
    for name, series in found.items():
        print(f"    {name}: {series}", flush=True)
    return found


def ratio(found: dict[str, Series], one: str, other: str) -> tuple[float, str]:
    """Return the median of the ratios within each round, which a slower machine changes little, and both figures."""
    ratios = [a / b for a, b in zip(found[one].rates, found[other].rates, strict=True)]
    return statistics.median(ratios), f"{found[one]} : {found[other]}"


def loaded(app: App, data: bytes | load.Next, before: Callable[[], Any] = lambda: None) -> Measure:
    """Measure a server under a load of requests."""

    def measure(seconds: float) -> tuple[float, float]:
        before()
        workers = app.workers()
        used = cpu(workers)
        result = load.run(app.port, data, clients=CLIENTS, seconds=seconds)
        assert not result.failures, f"{result.failures} failures"
        return result.rate, 1e6 * (cpu(workers) - used) / result.count

    return measure


def timed(command: str, before: Callable[[], Any] = lambda: None) -> Measure:
    """Measure the number of messages per second of a command that handles LINES of them."""

    def measure(_: float) -> tuple[float, None]:
        before()
        start = time.perf_counter()
        shell(command)
        return LINES / (time.perf_counter() - start), None

    return measure


def shell(command: str) -> None:
    subprocess.run(["bash", "-c", command], check=True, stdout=subprocess.DEVNULL)
