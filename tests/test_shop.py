"""examples/shop: each of its processes, and those of the server, is killed with -9 while 200 orders are placed."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx2
import pytest
import yaml
from PIL import Image
from seequeue import Queue

from tests.embedded.helpers import server_of
from tests.servers import ROOT, App, free_port, until

SHOP = ROOT / "examples/shop"
COMPOSE = yaml.safe_load((SHOP / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
ORDERS = 200
DECLINED = "failed: Reject: the bank declined the card"
UNANSWERED = "failed: ConnectionError: the bank does not answer"
EXPIRED = "failed: lease expired"  # of a worker that was killed at the last delivery


class Service:
    """A service of the compose file, as a process."""

    def __init__(self, name: str, port: int, folder: Path, seequeue: str) -> None:
        self.command = SERVICES[name]["command"].replace("0.0.0.0:8000", f"127.0.0.1:{port}").split()
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.env = {"PATH": path, "SEEQUEUE_URL": seequeue, "SHOP_DATA": str(folder)}
        self.env["PYTHONPATH"] = str(ROOT / "client/python")
        self.log = folder / f"{name}.log"
        self.killed: set[int] = set()
        self.start()

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=SHOP, env=self.env, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """Kill the process and its children, and start it again."""
        self.killed.add(self.process.pid)
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.start()

    def kill_child(self) -> None:
        """Kill one of its children."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        children = until(lambda: [pid for one in tasks.glob("*/children") for pid in one.read_text().split()])
        os.kill(int(children[0]), signal.SIGKILL)

    def end(self) -> None:
        """Wait until it has stopped."""
        try:
            assert self.process.wait(60) == 0, self.log.read_text()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


class Customers:
    """They place orders and look at them. A page that does not come is asked for again."""

    def __init__(self, url: str, seequeue: str) -> None:
        self.dead = [Queue(f"{name}.dead", url=seequeue) for name in ("charges", "pictures")]
        self.http = httpx2.Client(base_url=url, timeout=20)
        self.cards: dict[str, str] = {}  # of each order that was placed
        self.states: dict[str, list[str]] = {}  # of the payment and of the proof of each order that has ended

    def ask(self, method: str, path: str, **form: object) -> str:
        """Return a page, or that to which it redirects; "" if it does not come."""
        with contextlib.suppress(httpx2.TransportError):
            answer = self.http.request(method, path, follow_redirects=True, **form)  # type: ignore[arg-type]
            return answer.text if answer.is_success else ""
        return ""

    def place(self, number: int) -> None:
        """Fill in the form. One card in twenty is declined, and one picture in twenty is none."""
        job = re.findall('name="job" value="(.*)"', until(partial(self.ask, "GET", "/")))[0]
        fields = {"to": "ana@example.com", "job": job, "card": "0000" if number % 20 == 7 else "1234"}
        picture = io.BytesIO(b"none" if number % 20 == 11 else b"")
        if not picture.getvalue():
            Image.new("RGB", (400, 300), (number, 0, 99)).save(picture, "PNG")
        until(partial(self.ask, "POST", "/orders", data=fields, files={"picture": picture.getvalue()}))
        self.cards[job] = fields["card"]

    def wait_for(self, job: str) -> None:
        """Wait until the payment and the proof of an order have ended."""
        self.states[job] = until(lambda: self.ended(job))

    def ended(self, job: str) -> list[str]:
        """Return both states, or [] as long as one of them is not known."""
        states = re.findall("<b>(.*)</b>", self.ask("GET", f"/orders/{job}"))
        for number, state in enumerate(states):
            if state == "waiting":  # also if its worker was killed at its last delivery
                letter = next(self.dead[number].all(contains=job), None)
                states[number] = f"failed: {letter.reason}" if letter else ""
        return states if all(states) else []


class World:
    """The server and the services, with what can happen to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = App(folder / "server", WEB_CONCURRENCY="1")
        port = free_port()
        self.services = {name: Service(name, port, folder, self.server.url) for name in SERVICES}
        self.customers = Customers(f"http://127.0.0.1:{port}", self.server.url)

    def notes(self, file: str) -> list[tuple[str, int]]:
        """Return the orders in a file of the bank or the mail server, each with the process that asked for it."""
        path = self.folder / f"{file}.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(order, int(pid)) for order, pid in (line.split() for line in lines)]

    def mailed_to_all(self) -> list[tuple[str, int]]:
        """Return the notes of the mail server, once every order that was charged has a mail."""
        mailed = self.notes("mailed")
        return mailed if {order for order, _ in mailed} == {order for order, _ in self.notes("charged")} else []

    def disasters(self) -> list[Callable[[], None]]:
        """Return what happens, one after the other."""
        services, server = self.services.values(), self.server
        return [
            self.kill_a_worker_that_has_charged,
            *(service.kill for service in services),
            self.services["pictures"].kill_child,
            lambda: os.kill(until(server.workers)[0], signal.SIGKILL),
            lambda: os.kill(until(lambda: server_of(server.folder)), signal.SIGKILL),
            self.kill_server,
        ]

    def kill_a_worker_that_has_charged(self) -> None:
        """Kill the worker just after a charge, often before its ack."""
        before = len(self.notes("charged"))
        until(lambda: len(self.notes("charged")) > before)
        self.services["charges"].kill()

    def kill_server(self) -> None:
        """Kill all processes of the server, and start it again."""
        os.killpg(self.server.process.pid, signal.SIGKILL)
        self.server.process.wait()
        self.server.start()

    def end(self) -> None:
        for service in self.services.values():
            service.process.terminate()
        for service in self.services.values():
            service.end()
        self.server.end()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.end()


def test_the_services_call_one_of_the_included_file_that_trusts_its_name() -> None:
    [file] = COMPOSE["include"]
    server = yaml.safe_load((SHOP / file).read_text())["services"]["web"]
    assert "web" in server["environment"]["TRUSTED_HOSTS"]
    for service in SERVICES.values():
        assert service["environment"]["SEEQUEUE_URL"] == "http://web:5000"
        assert service["depends_on"].keys() == {"web"}


@pytest.mark.slow
def test_every_order_ends_and_is_charged_twice_only_if_its_worker_was_killed(world: World) -> None:
    customers = world.customers
    with ThreadPoolExecutor(4) as crowd:
        placing = [crowd.submit(customers.place, number) for number in range(ORDERS)]
        disasters = world.disasters()
        for number, strike in enumerate(disasters, 1):
            until(lambda: len(customers.cards) >= ORDERS * number / (len(disasters) + 1))  # noqa: B023
            strike()
        for one in placing:
            one.result()
    with ThreadPoolExecutor(4) as crowd:
        list(crowd.map(customers.wait_for, customers.cards))
    charged, mailed = world.notes("charged"), until(world.mailed_to_all)
    assert len(customers.cards) == ORDERS
    for order, card in customers.cards.items():
        payment, proof = customers.states[order]
        pids = [pid for paid, pid in charged if paid == order]
        assert set(pids if payment != "done" else pids[:-1]) <= world.services["charges"].killed
        assert set([pid for told, pid in mailed if told == order][:-1]) <= world.services["mails"].killed
        assert proof in ("done", "failed: Reject: not a picture", EXPIRED)
        assert payment in ("done", DECLINED if card == "0000" else UNANSWERED, EXPIRED)
        assert pids or payment != "done"
