"""What another program keeps beside its list, as far as it can be counted at no risk.

The numbers are of the whole program, except for Laravel's, which are of the list.
"""

import re
from collections.abc import Mapping, Sequence

from broker.attached.names import PRIORITY_MARK

Count = tuple[str, str]  # the command that counts, and the key
_LARAVEL = re.compile(r"(?:.*:|.*_)?queues:[^:]+")
_RESQUE = re.compile(r"(.*)resque:queue:[^:]+")
_SIDEKIQ = re.compile(r"(.*:)?queue:[^:]+")


def counts_beside(key: str) -> Mapping[str, Count]:
    """Return what a program whose list has this key may keep elsewhere: name -> how to count it."""
    if _LARAVEL.fullmatch(key):
        return {"reserved": ("ZCARD", f"{key}:reserved"), "delayed": ("ZCARD", f"{key}:delayed")}
    if resque := _RESQUE.fullmatch(key):
        return {"failed": ("LLEN", f"{resque[1]}resque:failed")}
    if sidekiq := _SIDEKIQ.fullmatch(key):
        commands = {"schedule": "ZCARD", "retry": "ZCARD", "dead": "ZCARD", "processes": "SCARD"}
        return {name: (command, (sidekiq[1] or "") + name) for name, command in commands.items()}
    # Celery's worker keeps here what it has taken and not acknowledged. A queue of Celery's has a binding.
    binding = "_kombu.binding." + key.partition(PRIORITY_MARK)[0]
    return {"": ("EXISTS", binding), "unacked": ("HLEN", "unacked")}


def read_beside(counts: Mapping[str, Count], replies: Sequence[object]) -> dict[str, int]:
    """Return the numbers by name. What is missing, of another type or not permitted is left out.

    The reply named "" says whether the others belong to this list.
    """
    found = {name: reply for name, reply in zip(counts, replies, strict=True) if isinstance(reply, int)}
    if "" in counts and not found.pop("", 0):
        return {}
    return found
