"""The names of queues, and the map of their keys in Redis.

A queue named `jobs` with the prefix `queue:` has these keys. The key of the list is the hash tag of all others, so they
share a Cluster slot. Times are in milliseconds by the Redis clock. A digest is hexadecimal; that of a message of more
than 64 KiB is of its size and of samples.

    queue:jobs                     list    the waiting messages and nothing else: pushed left, popped right

  Reservations and delays
    {queue:jobs}:reserved          zset    id of a reservation -> its deadline
    {queue:jobs}:delayed           zset    id of a delayed message, which ends in "-d" -> when it returns
    {queue:jobs}:bodies            hash    id, without "-d" -> message;
                                           "<id>:failure" -> "<when>:<reason>", with "!" in front if it is to be buried;
                                           "<id>:by" -> who reserved it, if it said so
    {queue:jobs}:acked             zset    id acked within the last hour, the last 10,000 at least -> when
    {queue:jobs}:clock             string  "<when a lease or delay last began>:<a time before which none ends>:
                                           <when the last one ends>"

  Retries and dead letters
    {queue:jobs}:redeliveries      list    the history of the messages at the front, the foremost last:
                                           "<digest>:<deliveries>:<when>:<last failure>:<reason>", at most 100,000;
                                           an hour
    {queue:jobs}:dead              list    the dead letters: the waiting messages of the queue `jobs.dead`
    {queue:jobs}:dead:...                  the other keys of the queue `jobs.dead`: reserved, bodies, ...
    {queue:jobs}:failure_reasons   hash    digest of a message -> "<number>:<deliveries>:<when>:<reason>", of dead
                                           letters that were moved back, for a week after the last move; those of
                                           the dead letters themselves are in {queue:jobs}:dead:failure_reasons
    {queue:jobs}:counters          hash    totals for /metrics: expired, buried; a day after the last change, or the
                                           last scrape of /metrics at which the queue held something

  Consumers
    {queue:jobs}:waiters           hash    process -> "<number of its clients that wait>:<valid until>", then
                                           " <by> <number>" for each name that they gave; a minute
    {queue:jobs}:paused            string  exists while the queue is paused
    {queue:jobs}:resumed           list    wakes up the clients that wait for the end of a pause; a minute
    {queue:jobs}:settings          hash    at_once, per_second, max_deliveries: those of them that are set
    {queue:jobs}:rate              string  when the token bucket of `per_second` is full, in microseconds; until then

  Answers that are kept
    {queue:jobs}:answers:<number>  hash    digest of an Idempotency-Key -> fingerprint of its request and the answer, as
                                           MessagePack; each of 7 hashes takes those of six hours, then lives a day
    {queue:jobs}:result:<digest>   list    of a job: when it was stored, the result; a day, or as asked
    {queue:jobs}:cleared:<undo>    list    the messages that `clear` removed; an hour
                                   hash    the message that `remove` removed: message, position, ahead (the message
                                           before it), entry (of `redeliveries`), failure_reason; an hour
    {queue:jobs}:cleared:<undo>:history
                                   hash    of messages that were removed with many: digest -> entry of `redeliveries`,
                                           "<digest>:reason" -> failure reason; an hour

    {queue:jobs}:moved:<undo>      hash    the messages that `move` moved: digest -> number; "!" is in front of it if a
                                           failure reason was moved too; of one message also position, ahead; an hour

A push that is too large for one command stages its messages in a list {queue:jobs}:staged:<random>, which exists only
within one transaction.

{queue:jobs}:notices is a channel: "due <milliseconds from now>" when a lease or delay ends before all others, and
"results <key>..." when results were stored.

Keys that belong to no queue have the prefix alone as their hash tag, as no queue has an empty name:

    {queue:}:revoked:<session>     string  exists while a session of the page that was signed out could still be used
"""

import hashlib
import re

from RedisQueue import list_key

# The keys that scripts get after the list, in the order that shared.lua and pop_one.lua expect.
SCRIPT_KEYS = (
    *("reserved", "delayed", "bodies", "redeliveries", "dead", "acked", "waiters"),
    *("clock", "paused", "failure_reasons", "dead:failure_reasons", "counters"),
    *("rate", "settings"),
)
ANSWER_KEYS = tuple(f"answers:{number}" for number in range(7))
POP_ONE_KEYS = ("reserved", "delayed", "redeliveries", "paused", "failure_reasons", "settings")

SAMPLES, SAMPLE_BYTES = 16, 4096  # of a large message that its digest covers

DEAD_SUFFIX = ".dead"
# Even the longest name can have .dead behind it. The page uses this in HTML, where an unescaped - is an error.
NAME_PATTERN = re.compile(r"[A-Za-z0-9._:\-]{1,128}(?:\.dead)?")
NAME_RULE = "1 to 128 of the characters A-Z a-z 0-9 . _ - :"


class LeftKey(str):
    """The key of a list of another program that takes from the left end."""


def is_name(text: str) -> bool:
    """Return whether a text is a valid name of a queue."""
    return NAME_PATTERN.fullmatch(text) is not None


def parent_name(name: str) -> str | None:
    """Return the queue whose dead letters are in the queue `name`; None if it is an ordinary queue."""
    parent = name.removesuffix(DEAD_SUFFIX)
    return parent if parent and parent != name else None


def queue_keys(name: str, prefix: str = "queue:") -> tuple[str, str]:
    """Return the key of a queue's list, and the prefix of its other keys."""
    parent = parent_name(name)
    if parent is not None:
        key = queue_keys(parent, prefix)[1] + "dead"
        return key, key + ":"
    key = list_key(name, prefix)
    return key, "{" + key + "}:"


def tagged_key_pattern(prefix: str = "queue:") -> re.Pattern[str]:
    """Return a pattern of the keys of queues other than lists: group 3 is the kind, `queue_of` reads the queue."""
    return re.compile(rf"\{{{re.escape(prefix)}({NAME_PATTERN.pattern})\}}:((?:dead:)*)([a-z_]+)")


def tagged_key_glob(prefix: str = "queue:") -> str:
    """Return a glob of the keys and channels of queues other than lists, as Redis has them in ~ and & of an ACL."""
    return "{" + re.sub(r"([*?\[\]\\^])", r"\\\1", prefix) + "*"


def queue_of(match: re.Match[str]) -> str:
    """Return the name of the queue whose key matched. Dead letters can be reserved too: {queue:a}:dead:reserved."""
    return match[1] + DEAD_SUFFIX * match[2].count(":")


def message_digest(message: bytes) -> str:
    """Return the digest of a message as `digest_of` in failure_reasons.lua does: a large one is sampled."""
    size = len(message)
    if size > SAMPLES * SAMPLE_BYTES:
        starts = [i * (size - SAMPLE_BYTES) // (SAMPLES - 1) for i in range(SAMPLES)]
        message = b"%d:" % size + b"".join(message[start : start + SAMPLE_BYTES] for start in starts)
    return hashlib.sha1(message, usedforsecurity=False).hexdigest()[:20]


def digest_of(*parts: bytes) -> str:
    """Return a digest that differs for different lists of parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part) + part)
    return digest.hexdigest()[:32]
