"""A store whose clock can be set, by libfaketime."""

import os
import time
from pathlib import Path

from tests.servers import Store, until

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def has_faketime() -> bool:
    """Return whether libfaketime is installed. In CI fail if it is not."""
    assert FAKETIME or not os.environ.get("CI"), "faketime is not installed"
    return FAKETIME is not None


class ClockedStore(Store):
    """A Valkey whose wall clock can be set; its monotonic clock cannot."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True)
        self.control = folder / "clock"
        self.control.write_text("+0")
        switches = ("FAKETIME_NO_CACHE", "FAKETIME_DONT_FAKE_MONOTONIC", "DONT_FAKE_MONOTONIC")
        env = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(self.control)}
        super().__init__("valkey", folder, *options, env={**env, **dict.fromkeys(switches, "1")})

    def set_clock(self, seconds: int) -> None:
        """Set the clock to `seconds` after the right time, and wait until the server sees it."""
        new = self.control.with_suffix(".new")
        new.write_text(f"{seconds:+d}")
        new.rename(self.control)
        read = "return redis.call('TIME')"
        until(lambda: abs(int(self.client().eval(read, 0)[0]) - time.time() - seconds) < 60)
