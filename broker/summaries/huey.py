"""Tasks of huey. They are pickles, which are never loaded: id and name are at a fixed place of the bytes."""

import re

from broker.summaries.parts import Summary, call, summary

_HEAD = re.compile(
    rb"\x80[\x04\x05](?:\x95[\s\S]{8})?\x8c\rhuey\.registry\x94\x8c\x07Message\x94\x93\x94\("
    rb"\x8c[\s\S]([!-~]+)\x94\x8c[\s\S]([!-~]+)\x94"
)


def summarize(message: bytes) -> Summary | None:
    """Return the summary of a task; its arguments are not known."""
    if head := _HEAD.match(message):
        return summary("huey", call(head[2].decode(), None), id=head[1].decode(), serializer="pickle")
    return None
