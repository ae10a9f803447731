"""The table of shapes, and what finds the shape of a message."""

import codecs
from collections.abc import Callable

from broker.summaries import celery, events, huey, ids, laravel, ruby, taskiq
from broker.summaries.parts import Object, Summary, read_object

MAX_READ = 1 << 20  # bytes of a message that are looked at

# The members that a JSON object of this shape has, and what summarizes it; the first that does so is taken.
SHAPES: tuple[tuple[frozenset[str], Callable[[Object], Summary | None]], ...] = (
    (celery.KEYS, celery.summarize),
    (ruby.SIDEKIQ_KEYS, ruby.summarize_sidekiq),
    (ruby.FAKTORY_KEYS, ruby.summarize_faktory),
    (ruby.RESQUE_KEYS, ruby.summarize_resque),
    (laravel.KEYS, laravel.summarize),
    (taskiq.KEYS, taskiq.summarize),
    (events.LOGSTASH_KEYS, events.summarize_logstash),
    (events.BEATS_KEYS, events.summarize_beats),
    (events.CLOUDEVENTS_KEYS, events.summarize_cloudevent),
)


def summarize(message: bytes, key: str = "", is_whole: bool = True) -> Summary | None:
    """Return the summary of a message of another program, or None if its shape is not known. It never fails.

    `key` is that of its list, from which a list of ids is known. If `message` is only the head of one, `is_whole` is
    False, and the shape is found if the head tells it.
    """
    if message[:1] == b"\x80":
        return huey.summarize(message)
    if message[:64].lstrip()[:1] != b"{":
        return ids.summarize(message, key) if is_whole else None
    try:
        text, _ = codecs.utf_8_decode(message[:MAX_READ])  # it can end inside a character
        members = read_object(text, is_whole)
        for keys, summarize_one in SHAPES:
            if keys <= members.keys() and (found := summarize_one(members)):
                return found
    except (ValueError, RecursionError):  # not UTF-8, not JSON, or nested too deeply
        pass
    return None


def shape_of(message: bytes, key: str = "", is_whole: bool = True) -> str | None:
    """Return the name of a message's shape, or None if it is not known."""
    found = summarize(message, key, is_whole)
    return found.shape if found else None
