"""A cluster and Sentinels that accept only TLS, with passwords, on Debian's redis-server."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from broker.connections.connection import connect
from broker.connections.health import check_server, find_mistake
from broker.queue import ReliableQueue
from tests.conftest import need
from tests.servers import Store, free_port, running, until


class TlsStore(Store):
    """A store that accepts only TLS, with the certificate `ca`."""

    def __init__(self, folder: Path, ca: Path, *options: str, password: str, first: tuple[str, ...] = ()) -> None:
        self.login, self.more = f":{password}@", f"?ssl_ca_certs={ca}"
        files = ("--tls-cert-file", str(ca), "--tls-key-file", f"{ca}.key", "--tls-ca-cert-file", str(ca))
        tls = (*files, "--tls-auth-clients", "no", "--tls-replication", "yes", "--tls-cluster", "yes", "--port", "0")
        super().__init__("redis", folder, *tls, "--requirepass", password, *options, first=first)

    def start(self) -> None:
        self.url = f"rediss://{self.login}127.0.0.1:{self.port}/0{self.more}"
        self.options = (*self.options, "--tls-port", str(self.port))
        super().start()


@pytest.fixture(scope="module")
def ca(folder: Path) -> Path:
    """A self-signed certificate of 127.0.0.1, with its key beside it."""
    need("redis")
    assert shutil.which("openssl")
    path = folder / "ca.pem"
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", f"{path}.key", "-out", str(path)]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *name, *files]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def tls_cluster(folder: Path, ca: Path) -> Iterator[TlsStore]:
    """A cluster of one primary."""
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with running(TlsStore(folder / "tls-cluster", ca, *options, password="s3cr3t")) as store:
        store.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until(lambda: b"cluster_state:ok" in store.ask("CLUSTER", "INFO"))
        yield store


@pytest.fixture(scope="module")
def tls_sentinel(folder: Path, ca: Path) -> Iterator[TlsStore]:
    """A Sentinel, and the primary that it monitors."""
    with running(TlsStore(folder / "tls-primary", ca, password="s3cr3t")) as primary:
        (folder / "tls-sentinel").mkdir()
        lines = f"sentinel monitor main 127.0.0.1 {primary.port} 1\nsentinel auth-pass main s3cr3t\n"
        (folder / "tls-sentinel" / "sentinel.conf").write_text(lines)
        first = ("sentinel.conf", "--sentinel")
        with running(TlsStore(folder / "tls-sentinel", ca, password="other", first=first)) as sentinel:
            yield sentinel


@pytest.mark.slow
def test_a_cluster_is_reached_over_tls(tls_cluster: TlsStore, ca: Path, name: str) -> None:
    hosts = f"rediss+cluster://:s3cr3t@127.0.0.1:1,127.0.0.1:{tls_cluster.port}"
    url = f"{hosts}?ssl_ca_certs={ca}"
    queue = ReliableQueue(connect(url), name)
    assert queue.push(b"a") == 1
    assert queue.pop() == [b"a"]
    queue.wait(0.01, connect(url, blocking=True))
    check_server(queue.client)
    assert find_mistake(url) == ""
    with pytest.raises(redis.ConnectionError, match="certificate"):
        connect(hosts).llen(name)


def test_a_primary_behind_sentinels_is_reached_over_tls(tls_sentinel: TlsStore, ca: Path, name: str) -> None:
    hosts = f"rediss+sentinel://:s3cr3t@127.0.0.1:{tls_sentinel.port}/main"
    url = f"{hosts}?ssl_ca_certs={ca}&sentinel_password=other"
    queue = ReliableQueue(connect(url), name)
    assert queue.push(b"a") == 1
    assert queue.pop() == [b"a"]
    assert find_mistake(url) == ""
    with pytest.raises(redis.ConnectionError):
        connect(f"{hosts}?sentinel_password=other").llen(name)
