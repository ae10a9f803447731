"""Wrong tokens: those who send them wait for their answer, longer each time, and the log says how many came.

A right token is never delayed or refused, whatever else comes from its address, so nobody can keep others out. Each
process counts for itself, and asks Redis nothing.
"""

import ipaddress
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from web.errors import ApiError

FREE_ATTEMPTS = 5  # wrong tokens of an address that are answered without a delay: people mistype
FIRST_DELAY = 0.25  # seconds for the next one; it doubles each time
MAX_DELAY = 4.0  # seconds
MEMORY_SECONDS = 900.0  # an address that has sent no wrong token for so long starts anew
MAX_ADDRESSES = 10_000  # that are remembered; beyond it the one seen least lately is forgotten
MAX_DELAYED_PER_ADDRESS = 10  # answers of an address that are delayed at once; more are refused at once (429)
MAX_DELAYED = 500  # answers of all addresses

log = logging.getLogger(__name__)


@dataclass
class _Address:
    attempts: int = 0
    delayed: int = 0
    last: float = 0.0


class AuthThrottle:
    """The wrong tokens that came to one process lately, by address."""

    def __init__(self, sleep: Callable[[float], object] = time.sleep) -> None:
        self._sleep = sleep
        self._addresses: OrderedDict[str, _Address] = OrderedDict()
        self._delayed = 0
        self._lock = threading.Lock()

    def record_failure(self, address: str) -> None:
        """Count a wrong token and wait before it is answered.

        Raises:
            ApiError: too many answers wait already (429).
        """
        network = network_of(address)
        with self._lock:
            found = self._count(network)
            if found.attempts & (found.attempts - 1) == 0:  # 1, 2, 4, 8, ...: nobody can fill the log
                log.warning("Wrong token from %s: %d lately", network, found.attempts)
            delay = _delay(found.attempts)
            if not delay:
                return
            if found.delayed >= MAX_DELAYED_PER_ADDRESS or self._delayed >= MAX_DELAYED:
                raise ApiError("too_many_attempts", headers={"Retry-After": f"{MAX_DELAY:.0f}"})
            found.delayed += 1
            self._delayed += 1
        try:
            self._sleep(delay)
        finally:
            with self._lock:
                found.delayed -= 1
                self._delayed -= 1

    def _count(self, network: str) -> _Address:
        now = time.monotonic()
        found = self._addresses.setdefault(network, _Address())
        if now - found.last > MEMORY_SECONDS:
            found.attempts = 0
        found.attempts, found.last = found.attempts + 1, now
        self._addresses.move_to_end(network)
        if len(self._addresses) > MAX_ADDRESSES:
            self._addresses.popitem(last=False)
        return found


def _delay(attempts: int) -> float:
    """Return the seconds that the answer to a wrong token waits."""
    if attempts <= FREE_ATTEMPTS:
        return 0.0
    doublings = min(attempts - FREE_ATTEMPTS - 1, 10)
    return min(MAX_DELAY, FIRST_DELAY * (1 << doublings))


def network_of(address: str) -> str:
    """Return what one client has: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a unix socket has none
        return address or "a unix socket"
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    if mapped or parsed.version == 4:
        return str(mapped or parsed)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False))
