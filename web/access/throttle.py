"""Throttle wrong tokens: their answers are delayed more and more, and the log counts them.

A valid token is never delayed or refused, whatever else comes from its IP address, so nobody can lock others out. Each
process has its own counts, without Redis.
"""

import ipaddress
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from web.errors import ApiError

FREE_ATTEMPTS = 5  # wrong tokens from one client that are answered without a delay: people mistype
FIRST_DELAY = 0.25  # seconds for the next one; it doubles each time
MAX_DELAY = 4.0  # seconds
MEMORY_SECONDS = 900.0  # a client that sends no wrong token for this long starts afresh
MAX_CLIENTS = 10_000  # remembered; beyond that the least recent one is forgotten
MAX_DELAYED_PER_CLIENT = 10  # answers to one client that are delayed at the same time; more are refused (429)
MAX_DELAYED = 500  # answers to all clients

log = logging.getLogger(__name__)


@dataclass
class _Client:
    attempts: int = 0
    delayed: int = 0
    last_attempt: float = 0.0


class AuthThrottle:
    """The recent wrong tokens in one process, by client."""

    def __init__(self, sleep: Callable[[float], object] = time.sleep) -> None:
        self._sleep = sleep
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._delayed = 0
        self._lock = threading.Lock()

    def record_failure(self, address: str) -> None:
        """Record a wrong token from an IP address, and delay its answer.

        Raises:
            ApiError: too many answers are delayed already (429).
        """
        network = network_of(address)
        with self._lock:
            client = self._count(network)
            if client.attempts & (client.attempts - 1) == 0:  # 1, 2, 4, 8, ...: nobody can fill the log
                log.warning("Wrong token from %s: %d recently", network, client.attempts)
            delay = _delay(client.attempts)
            if not delay:
                return
            if client.delayed >= MAX_DELAYED_PER_CLIENT or self._delayed >= MAX_DELAYED:
                raise ApiError("too_many_attempts", headers={"Retry-After": f"{MAX_DELAY:.0f}"})
            client.delayed += 1
            self._delayed += 1
        try:
            self._sleep(delay)
        finally:
            with self._lock:
                client.delayed -= 1
                self._delayed -= 1

    def _count(self, network: str) -> _Client:
        now = time.monotonic()
        client = self._clients.setdefault(network, _Client())
        if now - client.last_attempt > MEMORY_SECONDS:
            client.attempts = 0
        client.attempts, client.last_attempt = client.attempts + 1, now
        self._clients.move_to_end(network)
        if len(self._clients) > MAX_CLIENTS:
            self._clients.popitem(last=False)
        return client


def _delay(attempts: int) -> float:
    """Return the delay of the answer to a wrong token, in seconds."""
    doublings = attempts - FREE_ATTEMPTS - 1
    return min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(doublings, 10)) if doublings >= 0 else 0.0


def network_of(address: str) -> str:
    """Return the network that counts as one client: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a unix socket has none
        return address or "a unix socket"
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    if mapped or parsed.version == 4:
        return str(mapped or parsed)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False))
