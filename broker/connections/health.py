"""Health checks: whether Redis would run the queue's scripts, and whether it can lose messages.

On a cluster each primary is checked. Run as a module, it reads a REDIS_URL from stdin and prints what is wrong with it.
"""

import contextlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import redis
from redis.exceptions import ClusterDownError, MovedError, ReadOnlyError

from broker.connections.address import Address, Kind, parse_address
from broker.connections.batching import BatchingClient
from broker.connections.cluster import ClusterClient, each_primary
from broker.connections.connection import find_sentinels, new_connection
from broker.connections.errors import LacksPermissions, error_text, lacks_flags
from broker.connections.sentinel import ask_once
from broker.keys import queue_keys, tagged_key_glob

# A script that does nothing. It counts as one that writes, so Redis refuses it where it would refuse a queue's scripts:
# on a replica, and when it cannot save its data.
CHECK_SCRIPT = "#!lua flags=allow-oom\nreturn 1"


# Return the positions in ARGV of the commands that the user may not run. Redis 6 cannot check it: then none.
PERMISSION_SCRIPT = """
local denied = {}
for place, command in ipairs(redis.acl_check_cmd and ARGV or {}) do
  local is_known, is_allowed = pcall(redis.acl_check_cmd, unpack(cjson.decode(command)))
  if is_known and not is_allowed then table.insert(denied, place) end
end
return denied
"""
_LUA = "".join(path.read_text(encoding="utf-8") for path in (Path(__file__).parent.parent / "lua").rglob("*.lua"))
# The commands of scripts and the others that take, store, wait for or count messages: the key comes first.
KEY_COMMANDS = sorted(
    {*re.findall(r"call\w*\('([A-Z]+)'", _LUA), "BLMOVE", "EVALSHA", "HSCAN", "LPUSH", "RPUSH"} - {"TIME", "PUBLISH"}
)

_Label = TypeVar("_Label")


def check_server(client: Any, name: str = "default", prefix: str = "queue:") -> None:
    """Check that Redis would run the scripts of a queue.

    Raises:
        LacksPermissions: the Redis user lacks permissions.
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
        _check_permissions(primary, name, prefix)


def find_warning(client: Any, name: str = "default", prefix: str = "queue:") -> str:
    """Return a sentence about a risk: Redis can evict messages, has no memory for new ones, or refuses commands.

    Return "" if there is none.

    Raises:
        redis.RedisError: the server cannot be reached, or refuses commands.
    """
    for primary in each_primary(client):
        try:
            _check_permissions(primary, name, prefix)
            if missing := _find_missing_notices(primary, prefix):
                return f"The Redis user lacks permissions, so due messages and changes can be seen late: {missing}."
        except LacksPermissions as error:
            return str(error)
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


def _check_permissions(client: Any, name: str, prefix: str) -> None:
    """Check that the user has the permissions for a queue, if the server can report it.

    Raises:
        LacksPermissions: it does not.
    """
    list_key, beside = queue_keys(name, prefix)
    keys = {f"{prefix}*": list_key, tagged_key_glob(prefix): f"{beside}reserved"}
    calls = {(command, keys_): _call(command, key) for command in KEY_COMMANDS for keys_, key in keys.items()}
    calls |= {(command, ""): [command] for command in ("EXEC", "MULTI")}
    denied = _find_denied(client, calls)
    closed = [keys_ for keys_ in keys if all((command, keys_) in denied for command in KEY_COMMANDS)]
    commands = sorted({command for command, keys_ in denied if keys_ not in closed})
    if commands or closed:
        raise LacksPermissions(", ".join([*commands, *(f"keys {keys_}" for keys_ in closed)]))


def _find_missing_notices(client: Any, prefix: str) -> str:
    """Return the missing permissions without which due messages and changes are noticed late."""
    channels = tagged_key_glob(prefix)
    calls = {
        f"PUBLISH {channels}": ["PUBLISH", queue_keys("default", prefix)[1] + "notices", ""],
        f"PSUBSCRIBE {channels}": ["PSUBSCRIBE", channels],
        "CLIENT TRACKING": ["CLIENT", "TRACKING", "ON"],
        "SCAN": ["SCAN", "0"],
        "INFO": ["INFO"],
    }
    return ", ".join(_find_denied(client, calls))


def _call(command: str, key: str) -> list[str]:
    """Return a command on a key, which is never run. Each argument that can be a key is the key."""
    return [command, "digest", "1", key] if command == "EVALSHA" else [command, *[key] * 5]


def _find_denied(client: Any, calls: Mapping[_Label, Sequence[str]]) -> list[_Label]:
    """Return the labels of the commands that the user may not run."""
    try:
        places = client.eval(PERMISSION_SCRIPT, 0, *(json.dumps(call) for call in calls.values()))
    except redis.exceptions.NoPermissionError as error:
        raise LacksPermissions("EVAL") from error
    labels = list(calls)
    return [labels[place - 1] for place in places]


def _check_role(client: Any) -> None:
    try:
        client.eval(CHECK_SCRIPT, 0)
    except redis.exceptions.NoPermissionError:
        raise LacksPermissions("EVAL") from None
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
