"""The books of all processes, added up."""

from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

JUMP = 1800  # seconds that the store's clock jumps: less than the hour for which undos and acked ids are kept


@dataclass
class Figures:
    """The results of a run."""

    pushed: int = 0  # messages whose push succeeded
    lost: int = 0  # pushed messages that no consumer can have acked
    invented: int = 0  # received messages that were never pushed
    doubled: int = 0  # deliveries of a message beyond its first, except those after a release
    expired: int = 0  # leases that expired, as the store counted them
    redelivered: int = 0  # deliveries beyond the first, by the store's number of deliveries
    received_after_ack: int = 0  # deliveries of a message after its ack
    same_delivery: int = 0  # deliveries that two consumers received
    late: int = 0  # acks refused because the lease had expired
    unexpected: int = 0  # answers that no client should ever get
    at_risk: int = 0  # messages pushed while a failover could lose what was acknowledged
    repeatable: int = 0  # messages received or acked meanwhile
    dead: int = 0
    seconds: float = 0

    def balance(self) -> bool:
        """Return whether no guarantee was broken: what was at risk may be lost, or delivered again."""
        repeated = max(self.doubled - self.expired, self.received_after_ack, self.same_delivery)
        is_within = self.lost <= self.at_risk and repeated <= self.repeatable
        return is_within and self.invented == self.unexpected == self.dead == 0

    def __str__(self) -> str:
        return ", ".join(f"{each.name} {getattr(self, each.name):g}" for each in fields(self))


class Ledger:
    """The books of all processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ends: Counter[Path] = Counter()
        self.lines: list[list[str]] = []
        self.operations: Counter[str] = Counter()
        self.at_risk: Counter[str] = Counter()

    def read(self) -> "Ledger":
        """Read the lines written since the last call."""
        for path in self.folder.glob("*.book"):
            with path.open("rb") as file:
                file.seek(self.ends[path])
                whole = file.read().rpartition(b"\n")
            self.ends[path] += len(whole[0]) + len(whole[1])
            for line in whole[0].decode().splitlines():
                self.lines.append(line.split())
                self.operations[self.lines[-1][0]] += 1
        return self

    def figures(self) -> Figures:
        pushed = {line[1] for line in self.lines if line[0] == "pushed"}
        released = {line[1] for line in self.lines if line[0] == "released"}
        acked = {line[1] for line in self.lines if line[0] == "acked"}
        late = {line[1] for line in self.lines if line[0] == "late"}
        maybe_acked = {line[1] for line in self.lines if line[0] == "acking"} - late
        received: dict[str, list[tuple[str, int, int]]] = {}
        for line in self.lines:
            if line[0] == "received":
                received.setdefault(line[2], []).append((line[1], int(line[3]), int(line[4])))
        found = Figures(pushed=len(pushed), late=self.operations["late"], unexpected=self.operations["unexpected"])
        found.at_risk, found.repeatable = self.at_risk["pushed"], self.at_risk["received"] + self.at_risk["acked"]
        found.lost = sum(not any(id in maybe_acked for id, _, _ in received.get(text, ())) for text in pushed)
        found.invented = len(received.keys() - pushed)
        for deliveries in received.values():
            found.redelivered += sum(number > 1 for _, number, _ in deliveries)
            found.doubled += max(0, sum(id not in released for id, _, _ in deliveries) - 1)
            found.same_delivery += len(deliveries) - len({id for id, _, _ in deliveries})
            done = [began(id, at) for id, _, at in deliveries if id in acked]
            found.received_after_ack += sum(began(id, at) > min(done) for id, _, at in deliveries) if done else 0
        return found


def began(id: str, received: int) -> int:
    """Return when a delivery began, in microseconds of real time. Its id has the store's clock, maybe JUMP ahead."""
    time, jump = int(id.partition("-")[0]), JUMP * 1_000_000
    return time - jump * round((time - received) / jump)
