"""Stand-ins for a bank and a mail server. All that they do is a line in a file: the order, and who asked for it."""

import os
import random
import time
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("SHOP_DATA", "."))


class Declined(Exception):
    """The bank does not accept the card."""


def charge(order: str, card: str) -> str:
    """Charge a card, slowly, and return the receipt. One time in five the bank does not answer."""
    time.sleep(random.uniform(0.05, 0.25))
    if card == "0000":
        raise Declined("the bank declined the card")
    if random.random() < 0.2:
        raise ConnectionError("the bank does not answer")
    _note("charged", order)
    return f"Paid: order {order}"


def send(mails: list[dict[str, Any]]) -> None:
    """Send mails over one connection, which takes longer to open than a mail to send."""
    time.sleep(0.1)
    _note("mailed", *[mail["order"] for mail in mails])


def _note(file: str, *orders: str) -> None:
    with open(FOLDER / f"{file}.txt", "ab", buffering=0) as notes:
        notes.write("".join(f"{order} {os.getpid()}\n" for order in orders).encode())
