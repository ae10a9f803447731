import os
import sys
import tempfile
from pathlib import Path

from tests.ledger.run import run

SHARES = {"store": 1.0, "embedded": 0.3, "sentinels": 0.1}  # of the messages and disasters, in each world


def main() -> None:
    messages, events, consumers, seed = (
        int(os.environ.get(f"SOAK_{name}", default))
        for name, default in (("MESSAGES", "30000"), ("EVENTS", "300"), ("CONSUMERS", "6"), ("SEED", "1"))
    )
    found = []
    for name in os.environ.get("SOAK_WORLDS", ",".join(SHARES)).split(","):
        sizes = round(messages * SHARES[name]), round(events * SHARES[name])
        print(f"{name}: {sizes[0]} messages, {sizes[1]} disasters, seed {seed}")
        with tempfile.TemporaryDirectory(prefix="ledger") as folder:
            report = lambda line: print(line, flush=True)  # noqa: E731
            found.append(run(Path(folder), *sizes, consumers, report, name=name, seed=seed))
        print(found[-1], flush=True)
        assert found[-1].pushed == sizes[0]
    sys.exit(not all(figures.balance() for figures in found))


if __name__ == "__main__":
    main()
