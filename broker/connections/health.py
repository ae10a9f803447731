"""Health checks: whether Redis would run the queue's scripts, and whether it can lose messages.

On a cluster each primary is checked. Run as a module, it reads a REDIS_URL from stdin and prints what is wrong with it.
"""

import contextlib
import re
import sys
from collections.abc import Mapping
from typing import Any

import redis
from redis.exceptions import ClusterDownError, MovedError, ReadOnlyError

from broker.connections.address import Address, Kind, parse_address
from broker.connections.batching import BatchingClient
from broker.connections.cluster import ClusterClient, each_primary
from broker.connections.connection import find_sentinels, new_connection
from broker.connections.errors import error_text, lacks_flags
from broker.connections.sentinel import ask_once

# A script that does nothing. It counts as one that writes, so Redis refuses it where it would refuse a queue's scripts:
# on a replica, and when it cannot save its data.
CHECK_SCRIPT = "#!lua flags=allow-oom\nreturn 1"


def check_server(client: Any) -> None:
    """Check that Redis would run the queue's scripts.

    Raises:
        redis.RedisError: Redis, or a part of the cluster, is unavailable or would refuse them.
    """
    for primary in each_primary(client):
        if isinstance(primary, BatchingClient):
            primary.probe()
        _check_role(primary)
        if isinstance(client, ClusterClient):
            _check_cluster(primary)
        elif _info(primary, "cluster").get("cluster_enabled"):
            raise MovedError("0 :0", status_code="MOVED")


def find_warning(client: Any) -> str:
    """Return a sentence about a risk: Redis can evict messages, or has no memory for new ones. "" if there is none.

    Raises:
        redis.ConnectionError: the server cannot be reached.
    """
    for primary in each_primary(client):
        memory = _info(primary, "memory")
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            return f"Redis can evict messages: its maxmemory-policy is {policy}, not noeviction."
        if 0 < memory.get("maxmemory", 0) <= memory.get("used_memory", 0):
            return "Redis is out of memory: pushes fail until messages are removed."
    return ""


def find_mistake(url: str) -> str:
    """Return why a REDIS_URL has the wrong form for its server, as the end of a sentence.

    Return "" if the form is right, or if the server cannot be reached.
    """
    address = parse_address(url)
    if address.kind is Kind.SENTINEL:
        return _find_sentinel_mistake(address)
    for host, port in address.hosts or ((None, 0),):
        with contextlib.suppress(redis.RedisError):
            info = ask_once(lambda host=host, port=port: new_connection(address, host, port), "INFO")  # type: ignore[misc]
            found = re.search(rb"(?:redis|server)_mode:(\w+)", info)
            return _MISTAKES.get((address.kind, found[1].decode() if found else ""), "")
    return ""


_MISTAKES = {  # kind of address, redis_mode in the server's INFO -> mistake
    (Kind.SERVER, "cluster"): "leads to a node of a Redis Cluster; it must look like redis+cluster://host:port",
    (Kind.SERVER, "sentinel"): "leads to a Sentinel; it must look like redis+sentinel://host:port/service",
    (Kind.CLUSTER, "sentinel"): "leads to a Sentinel; it must look like redis+sentinel://host:port/service",
    (Kind.CLUSTER, "standalone"): "leads to a server that is not in cluster mode; it must look like redis://host:port",
}


def _find_sentinel_mistake(address: Address) -> str:
    sentinels = find_sentinels(address)
    replies = []
    for opener in sentinels.openers:
        try:
            replies.append(sentinels.ask(opener))
        except (redis.ConnectionError, redis.TimeoutError):
            continue
        except redis.ResponseError as error:
            if error_text(error).startswith("ERR unknown command"):
                return "leads to a server that is not a Sentinel; it must look like redis://host:port"
    if replies and not any(replies):
        return f"names the service {address.service}, which its Sentinels do not know"
    return ""


def _check_role(client: Any) -> None:
    try:
        client.eval(CHECK_SCRIPT, 0)
    except redis.ResponseError as error:
        if not lacks_flags(error):
            raise
        if _info(client, "replication").get("role") == "slave":
            raise ReadOnlyError("Redis is a replica.", status_code="READONLY") from None


def _check_cluster(primary: Any) -> None:
    state = primary.execute_command("CLUSTER INFO")
    if state.get("cluster_state") != "ok" or state.get("cluster_slots_ok") != "16384":
        raise ClusterDownError("Some slots have no primary.", status_code="CLUSTERDOWN")


def _info(client: Any, section: str) -> Mapping[str, Any]:
    """Return a section of INFO; {} if the user lacks the permission."""
    with contextlib.suppress(redis.ResponseError):
        found: Mapping[str, Any] = client.info(section)
        return found
    return {}


if __name__ == "__main__":
    print(find_mistake(sys.stdin.readline().strip()))
