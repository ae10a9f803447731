"""Queue names and the map of keys.

For a queue called `jobs` and the prefix `queue:`. All keys of a queue share one Cluster slot: the list's own key is
the hash tag of the others.

    queue:jobs                    list    the waiting messages and nothing else; pushed left, popped right
    {queue:jobs}:reserved         zset    reservation id -> end of its lease, milliseconds by the Redis clock
    {queue:jobs}:delayed          zset    id of a delayed message, with "-d" behind it -> when it comes back, ms
    {queue:jobs}:bodies           hash    reservation id, or id of a delayed message without "-d" -> message;
                                          "<id>:failure" -> "<when, milliseconds>:<reason>", ! before it: to be buried
    {queue:jobs}:returned         list    what the front of the list holds, the foremost last, for messages that came
                                          back: "<digest>:<deliveries>:<when>:<last failure>:<reason>" (at most 100,000,
                                          one hour; times in milliseconds)
    {queue:jobs}:acked            zset    ids acked within the last hour (at most 10,000) -> when, milliseconds
    {queue:jobs}:dead             list    the dead letters: the waiting messages of the queue `jobs.dead`
    {queue:jobs}:dead:...                 what belongs to the queue `jobs.dead`, as above: reserved, bodies, ...
    {queue:jobs}:causes           hash    why they died, of a queue of dead letters (so {queue:jobs}:dead:causes):
                                          digest -> "<how many>:<deliveries>:<when, milliseconds>:<reason>"
    {queue:jobs}:paused           string  exists while the queue is paused
    {queue:jobs}:resumed          list    wakes those who waited for the end of a pause (one minute)
    {queue:jobs}:waiters          hash    process -> "<clients that wait>:<valid until, milliseconds>"
    {queue:jobs}:clock            string  "<when a lease or delay last began or was extended>:<the next end that the
                                          timers were told>", milliseconds (until the last of them ends)
    {queue:jobs}:counters         hash    what scripts count for /metrics: expired, buried; and which message was next
                                          when /metrics last asked, and since when (30 days)
    {queue:jobs}:once:<digest>    list    the answer kept for an Idempotency-Key: fingerprint, then answer (24 hours)
    {queue:jobs}:cleared:<undo>   list    what `clear` removed, until `restore` (one hour)
                                  hash    what `remove` removed: message, position, ahead (the message before it), entry
                                          and cause (what `returned` and `causes` held of it)
    {queue:jobs}:result:<digest>  list    the result of a job: when, milliseconds; the result (a day, or as asked)

`{queue:jobs}:notices` is a channel: "due <in how many milliseconds>" and "result <key>" (timer.py).

A push that is too large for one command may stage its messages in a list `{queue:jobs}:staged:<random>`, which nobody
sees: one transaction makes it, pushes them and removes it.

What belongs to no queue has the prefix alone as its hash tag; no queue has an empty name:

    {queue:}:revoked:<session>      string  a session of the page that was signed out, until it would end by itself
"""

import re

DEAD_SUFFIX = ".dead"
NAME_PATTERN = re.compile(r"[A-Za-z0-9._:-]{1,128}(?:\.dead)?")  # the queue with the longest name has dead letters too
NAME_RULE = "1 to 128 characters: A-Z a-z 0-9 . _ - :"


def is_name(text: str) -> bool:
    """Return whether a text can be the name of a queue."""
    return NAME_PATTERN.fullmatch(text) is not None


def parent_name(name: str) -> str | None:
    """Return the queue whose dead letters the queue `name` holds; None if it is an ordinary queue."""
    parent = name.removesuffix(DEAD_SUFFIX)
    return parent if parent and parent != name else None


def queue_keys(name: str, prefix: str = "queue:") -> tuple[str, str]:
    """Return the key of the queue's list, and the prefix of all its other keys."""
    parent = parent_name(name)
    if parent is not None:
        key = queue_keys(parent, prefix)[1] + "dead"
        return key, key + ":"
    return prefix + name, "{" + prefix + name + "}:"


def beside_pattern(prefix: str = "queue:") -> re.Pattern[str]:
    """Return a pattern of the keys and the channel beside the lists; `name_beside` reads what it matches."""
    return re.compile(rf"\{{{re.escape(prefix)}({NAME_PATTERN.pattern})\}}:((?:dead:)*)([a-z]+)")


def beside_glob(prefix: str = "queue:") -> str:
    """Return a glob of the keys and the channels beside the lists, as Redis has them in ~ and & of an ACL."""
    return "{" + re.sub(r"([*?\[\]\\^])", r"\\\1", prefix) + "*"


def name_beside(match: re.Match[str]) -> str:
    """Return the queue to which a key belongs. Dead letters may be reserved and die again: {queue:a}:dead:reserved."""
    return match[1] + DEAD_SUFFIX * match[2].count(":")


def revoked_session_key(session: str, prefix: str = "queue:") -> str:
    """Return the key that exists where a session of the page was signed out."""
    return "{" + prefix + "}:revoked:" + session
