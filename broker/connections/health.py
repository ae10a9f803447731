"""Does Redis serve the queue, and keep what it is given? On a cluster each primary is asked."""

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

# A script that does nothing. It may write, as those of the queue may, so it is refused when they are: on a replica, or
# when Redis cannot save.
CHECK_SCRIPT = "#!lua flags=allow-oom\nreturn 1"


def check_server(client: Any) -> None:
    """Return if the queue can be used.

    Raises:
        redis.RedisError: Redis is away, or would refuse the queue's scripts; of a cluster, a part of it.
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
    """Return a sentence about what can lose messages on the server, or stops pushes now; "" if there is nothing.

    Raises:
        redis.ConnectionError: the server cannot be reached.
    """
    for primary in each_primary(client):
        memory = _info(primary, "memory")
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            return f"Redis deletes messages when its memory is full: its maxmemory-policy is {policy}, not noeviction."
        if 0 < memory.get("maxmemory", 0) <= memory.get("used_memory", 0):
            return "The memory of Redis is full: nothing can be pushed until messages are taken."
    return ""


def find_mistake(url: str) -> str:
    """Return what is wrong with the form of a REDIS_URL, "" if nothing is or if that cannot be seen now."""
    address = parse_address(url)
    if address.kind is Kind.SENTINEL:
        return _find_sentinel_mistake(address)
    for host, port in address.hosts or ((None, 0),):
        with contextlib.suppress(redis.RedisError):
            info = ask_once(lambda host=host, port=port: new_connection(address, host, port), "INFO")  # type: ignore[misc]
            found = re.search(rb"(?:redis|server)_mode:(\w+)", info)
            return _MISTAKES.get((address.kind, found[1].decode() if found else ""), "")
    return ""


_MISTAKES = {  # kind of address, what the server says that it is -> what is wrong
    (Kind.SERVER, "cluster"): "leads to a node of a Redis Cluster; it must look like redis+cluster://host:port",
    (Kind.SERVER, "sentinel"): "leads to a Sentinel; it must look like redis+sentinel://host:port/service",
    (Kind.CLUSTER, "sentinel"): "leads to a Sentinel; it must look like redis+sentinel://host:port/service",
    (Kind.CLUSTER, "standalone"): "leads to a server that is not in cluster mode; it must look like redis://host:port",
}


def _find_sentinel_mistake(address: Address) -> str:
    sentinels = find_sentinels(address)
    answers = []
    for opener in sentinels.openers:
        try:
            answers.append(sentinels.ask(opener))
        except (redis.ConnectionError, redis.TimeoutError):
            continue
        except redis.ResponseError as error:
            if error_text(error).startswith("ERR unknown command"):
                return "leads to a server that is no Sentinel; it must look like redis://host:port"
    if answers and not any(answers):
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
        raise ClusterDownError("Some slots are not served.", status_code="CLUSTERDOWN")


def _info(client: Any, section: str) -> Mapping[str, Any]:
    """Return a section of INFO, {} for a user that may not ask for it."""
    with contextlib.suppress(redis.ResponseError):
        found: Mapping[str, Any] = client.info(section)
        return found
    return {}


if __name__ == "__main__":
    print(find_mistake(sys.stdin.readline().strip()))
