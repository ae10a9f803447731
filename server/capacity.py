"""How many clients a worker process can serve: MAX_BLOCKED_CLIENTS and others, within its limit of open files."""

import contextlib
import resource
from dataclasses import dataclass
from typing import Any

from settings import BadSetting

MAX_OTHER_CLIENTS = 1000  # per process, besides those that wait for messages
RESERVED_FILES = 64  # for Redis, logs and static files
MIN_OPEN_FILES = 100
MACOS_OPEN_FILES = 10240  # macOS reports no limit and refuses more than this


@dataclass(frozen=True)
class Capacity:
    """The number of clients that each worker process can serve."""

    wanted_clients: int  # that can wait, according to MAX_BLOCKED_CLIENTS
    blocked_clients: int  # that can wait, within the limit of open files
    other_clients: int
    open_files: int  # the limit of open files

    @property
    def connections(self) -> int:
        """The number of all clients. Those that wait never take the places of the others."""
        return self.blocked_clients + self.other_clients

    def check(self, log: Any) -> None:
        """Warn if fewer clients can wait than wanted.

        Raises:
            BadSetting: the limit of open files is too low to start.
        """
        if self.open_files < MIN_OPEN_FILES:
            raise BadSetting(f"the limit of open files is {self.open_files}; raise it with: ulimit -n 4096")
        if self.blocked_clients < self.wanted_clients:
            log.warning(
                "The limit of open files (ulimit -n: %d) lets %d clients wait in each process instead of %d.",
                *(self.open_files, self.blocked_clients, self.wanted_clients),
            )


def plan(max_blocked_clients: int) -> Capacity:
    """Raise this process's limit of open files as far as needed and possible, and divide the files among clients.

    A client that waits needs a socket, and in the worst case a connection to Redis for its queue.
    """
    open_files = _raise_limit(RESERVED_FILES + MAX_OTHER_CLIENTS + 2 * max_blocked_clients)
    free = max(4, open_files - RESERVED_FILES)
    others = min(MAX_OTHER_CLIENTS, free // 2)
    return Capacity(max_blocked_clients, min(max_blocked_clients, (free - others) // 2), others, open_files)


def _raise_limit(wanted: int) -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    for limit in (wanted, MACOS_OPEN_FILES):
        raised = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            return raised
    return soft
