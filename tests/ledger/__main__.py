import os
import random
import sys
import tempfile
from pathlib import Path

from tests.ledger.roles import ROLES, Book
from tests.ledger.run import run


def main() -> None:
    messages, events, consumers = (
        int(os.environ.get(f"SOAK_{name}", default))
        for name, default in (("MESSAGES", "30000"), ("EVENTS", "300"), ("CONSUMERS", "6"))
    )
    with tempfile.TemporaryDirectory(prefix="ledger") as folder:
        figures = run(Path(folder), messages, events, consumers, lambda line: print(line, flush=True))
    print(figures)
    faults = figures.lost + figures.invented + figures.received_after_ack + figures.same_delivery + figures.unexpected
    sys.exit(bool(faults or figures.doubled > figures.expired or figures.pushed != messages))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        role, url, path, seed, *arguments = sys.argv[1:]
        ROLES[role](url, Book(Path(path)), random.Random(int(seed)), *arguments)
    else:
        main()
