"""A REDIS_URL names one server, Sentinels with a service, or a cluster. Malformed ones: tests/test_settings.py."""

import pytest

from broker.connections.address import Kind, parse_address


@pytest.mark.parametrize("url", ["redis://h/3", "rediss://:p@h:1", "unix:///a.sock", "redis://:p@ss@h?db=1"])
def test_the_url_of_one_server_is_kept(url: str) -> None:
    address = parse_address(url)
    assert (address.kind, address.url, address.hosts) == (Kind.SERVER, url, ())


def test_sentinels_have_a_service_a_database_and_a_password_of_their_own() -> None:
    url = "rediss+sentinel://me:p%40ss@h1,[::1]:7/main/3?ssl_cert_reqs=none&sentinel_username=s&sentinel_password=a%26b"
    address = parse_address(url)
    assert (address.kind, address.service) == (Kind.SENTINEL, "main")
    assert address.hosts == (("h1", 26379), ("::1", 7))
    assert address.url == "rediss://me:p%40ss@h1:26379/3?ssl_cert_reqs=none"
    assert address.sentinel_login == {"username": "s", "password": "a&b"}


def test_a_cluster_has_hosts() -> None:
    address = parse_address("redis+cluster://:secret@[::1],h2:7000/?socket_timeout=2")
    assert (address.kind, address.hosts, address.service) == (Kind.CLUSTER, (("::1", 6379), ("h2", 7000)), "")
    assert address.url == "redis://:secret@[::1]:6379/0?socket_timeout=2"


@pytest.mark.parametrize(
    "url", ["redis://:secret/@h", "redis+sentinel://:secret@h", "redis+cluster://:secret?@h", "redis+other://:secret@h"]
)
def test_no_error_and_no_repr_holds_a_password(url: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_address(url)
    assert "secret" not in str(raised.value)
    assert "secret" not in repr(parse_address("redis+sentinel://:secret@h/a?sentinel_password=secret"))
