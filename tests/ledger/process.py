"""One process of a run: python -m tests.ledger.process ROLE URL BOOK SEED ... It imports little, to start quickly."""

import random
import sys
from collections.abc import Callable
from pathlib import Path

from tests.ledger.mix import settle, tidy
from tests.ledger.roles import Book, consume, consume_in_python, pop, produce

ROLES: dict[str, Callable[..., None]] = {
    "produce": produce,
    "consume": consume,
    "python": consume_in_python,
    "pop": pop,
    "settle": settle,
    "tidy": tidy,
}

if __name__ == "__main__":
    role, url, path, seed, *arguments = sys.argv[1:]
    ROLES[role](url, Book(Path(path)), random.Random(int(seed)), *arguments)
