"""The addresses to listen on, checked before the start: are they ours and free, and who can reach them?"""

import errno
import ipaddress
import os
import socket
import time
from typing import Any

from gunicorn import systemd

from settings import BadSetting, Settings

CONNECT_TIMEOUT = 1.0  # seconds to wait for a program that may listen on our address
LEAVING_TIMEOUT = 1.5  # seconds to wait for the workers of a killed master, which notice that every second
LEAVING_INTERVAL = 0.1  # seconds between two looks whether they are gone


def bind_addresses(settings: Settings) -> list[str]:
    """Return what gunicorn binds. `localhost` is both loopback addresses: some clients try ::1 first, some know only
    127.0.0.1.
    """
    hosts = [settings.host]
    if settings.host.lower() == "localhost":
        hosts = ["127.0.0.1", "::1"] if _has_ipv6() else ["127.0.0.1"]
    return [f"[{host}]:{settings.port}" if ":" in host else f"{host}:{settings.port}" for host in hosts]


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def check_addresses(settings: Settings, config: Any) -> None:
    """Check what gunicorn is about to listen on, whether HOST says so, its own options, systemd or an older master.

    Raises:
        BadSetting: an address is not ours, or taken, or open to other machines without a token.
    """
    inherited = _inherited_addresses(config.address)
    for address in inherited or config.address:
        if not isinstance(address, tuple):
            continue  # a unix socket
        host, port = address[:2]
        if not settings.tokens and not settings.allow_unauthenticated:
            _check_closed(host, port)
        if not inherited:
            _check_free(host, port, config.reuse_port)


def _inherited_addresses(configured: list[Any]) -> list[Any]:
    """Return the addresses of the sockets that are open already; [] if gunicorn opens those that are configured."""
    files = [file for file in configured if isinstance(file, int)]  # --bind fd://3
    files = files or [int(file) for file in os.environ.get("GUNICORN_FD", "").split(",") if file]
    files = files or [systemd.SD_LISTEN_FDS_START + n for n in range(systemd.listen_fds(unset_environment=False))]
    found = []
    for file in files:
        with socket.socket(fileno=os.dup(file)) as inherited:
            found.append(inherited.getsockname())
    return found


def _check_closed(host: str, port: int) -> None:
    """Refuse an address that other machines can reach."""
    host = host or "0.0.0.0"  # --bind :5000
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise BadSetting(
            f"HOST is {host}, which is not an address of this machine ({error.strerror}); set HOST=localhost "
            "(conda and tcsh set HOST for themselves)"
        ) from None
    if not all(ipaddress.ip_address(address).is_loopback for address in found):
        raise BadSetting(
            f"other machines can reach {host} port {port}, and no token is set; set API_TOKEN, or HOST=localhost "
            "(conda and tcsh set HOST for themselves), or ALLOW_UNAUTHENTICATED=1 if everybody may come in"
        )


def _check_free(host: str, port: int, reuse_port: bool) -> None:
    """Refuse an address that this machine does not have, or on which another program listens."""
    end = time.monotonic() + LEAVING_TIMEOUT
    while _is_used(host, port, reuse_port):
        if time.monotonic() > end:
            airplay = " (on macOS it may be the AirPlay Receiver)" if port == 5000 else ""
            raise BadSetting(
                f"{host} port {port} is in use, another program listens there{airplay}; set PORT to another port"
            )
        time.sleep(LEAVING_INTERVAL)


def _is_used(host: str, port: int, reuse_port: bool) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family, reuse_port=reuse_port).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return True
        why = str(error.strerror).partition(" (")[0]
        raise BadSetting(f"{host} port {port}: {why}; set HOST or PORT") from None
    # macOS lets us listen on a loopback address beside a program that listens on all addresses.
    return not reuse_port and _answers(host, port)


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT).close()
    except OSError:
        return False
    return True


def page_url(host: str, port: int) -> str:
    """Return the address of the page for a server that listens there."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{shown}]:{port}/" if ":" in shown else f"http://{shown}:{port}/"
