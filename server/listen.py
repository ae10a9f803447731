"""The addresses to listen on, checked before the start: on this machine, free, and not open to others by mistake."""

import errno
import ipaddress
import os
import socket
import time
from typing import Any

from gunicorn import systemd

from settings import BadSetting, Settings

CONNECT_TIMEOUT = 1.0  # seconds to connect to a program that may listen on our address
IN_USE_TIMEOUT = 1.5  # seconds for an address to become free: workers of a killed master stop in about one
IN_USE_INTERVAL = 0.1  # seconds between two checks whether it is free


def bind_addresses(settings: Settings) -> list[str]:
    """Return the addresses for gunicorn to bind.

    `localhost` is both loopback addresses: some clients try ::1 first, some know only 127.0.0.1. With port 0 it is only
    the latter, since each address would get a port of its own.
    """
    hosts = [settings.host]
    if settings.host.lower() == "localhost":
        hosts = ["127.0.0.1", "::1"] if settings.port and _has_ipv6() else ["127.0.0.1"]
    return [f"[{host}]:{settings.port}" if ":" in host else f"{host}:{settings.port}" for host in hosts]


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def check_addresses(settings: Settings, config: Any) -> None:
    """Check the addresses to listen on, from HOST, gunicorn's own options, systemd or an older master.

    Raises:
        BadSetting: an address is not on this machine, is in use, or lets other machines connect without a token.
    """
    inherited = _inherited_addresses(config.address)
    for address in inherited or config.address:
        if not isinstance(address, tuple):
            continue  # a unix socket
        host, port = address[:2]
        if not settings.tokens and not settings.allow_unauthenticated:
            _check_loopback(host, port)
        if not inherited:
            _check_free(host, port, config.reuse_port)


def _inherited_addresses(configured: list[Any]) -> list[Any]:
    """Return the addresses of inherited sockets; [] if gunicorn will open the configured ones."""
    files = [file for file in configured if isinstance(file, int)]  # --bind fd://3
    files = files or [int(file) for file in os.environ.get("GUNICORN_FD", "").split(",") if file]
    files = files or [systemd.SD_LISTEN_FDS_START + n for n in range(systemd.listen_fds(unset_environment=False))]
    addresses = []
    for file in files:
        with socket.socket(fileno=os.dup(file)) as inherited:
            addresses.append(inherited.getsockname())
    return addresses


def _check_loopback(host: str, port: int) -> None:
    """Refuse an address that other machines can reach."""
    host = host or "0.0.0.0"  # --bind :5000
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise BadSetting(
            f"HOST is {host}, which is not an address of this machine ({error.strerror}); set HOST=localhost "
            "(conda and tcsh set HOST for themselves)"
        ) from None
    if not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        raise BadSetting(
            f"other machines can reach {host} port {port}, and no token is set; set API_TOKEN, or HOST=localhost "
            "(conda and tcsh set HOST for themselves), or ALLOW_UNAUTHENTICATED=1 if they may connect without a token"
        )


def _check_free(host: str, port: int, reuse_port: bool) -> None:
    """Refuse an address that this machine does not have, or on which another program listens."""
    deadline = time.monotonic() + IN_USE_TIMEOUT
    while _is_in_use(host, port, reuse_port):
        if time.monotonic() > deadline:
            airplay = " (on macOS perhaps the AirPlay Receiver)" if port == 5000 else ""
            raise BadSetting(
                f"{host} port {port} is in use: another program listens there{airplay}; set PORT to another port"
            )
        time.sleep(IN_USE_INTERVAL)


def _is_in_use(host: str, port: int, reuse_port: bool) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family, reuse_port=reuse_port).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return True
        why = str(error.strerror).partition(" (")[0]
        raise BadSetting(f"{host} port {port}: {why}; set HOST or PORT") from None
    # macOS lets us listen on a loopback address beside a program that listens on all addresses.
    return not reuse_port and _accepts(host, port)


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT).close()
    except OSError:
        return False
    return True


def page_url(host: str, port: int) -> str:
    """Return the URL of the page for a server that listens on this address."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{shown}]:{port}/" if ":" in shown else f"http://{shown}:{port}/"
