"""The direction of a list: everything else takes the right end for the front.

A MirroredClient shows a list from its other end, so no operation needs to know where a program takes its messages.
"""

from typing import Any


class MirroredClient:
    """A client whose commands on lists see them from right to left. Other commands are those of `client`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def pipeline(self, *arguments: Any, **options: Any) -> "MirroredPipeline":
        return MirroredPipeline(self._client.pipeline(*arguments, **options))

    def lrange(self, key: str, start: int, stop: int) -> list[bytes]:
        found: list[bytes] = self._client.lrange(key, *_mirrored(start, stop))
        return found[::-1]

    def lpush(self, key: str, *messages: bytes) -> int:
        return int(self._client.rpush(key, *messages))


class MirroredPipeline:
    """A pipeline of a MirroredClient."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._kinds: list[str] = []  # of the commands so far: lrange, lpush, lpos or other

    def __enter__(self) -> "MirroredPipeline":
        self._pipeline.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._pipeline.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        self._kinds.append("other")
        return getattr(self._pipeline, name)

    def lrange(self, key: str, start: int, stop: int) -> None:
        self._kinds.append("lrange")
        self._pipeline.lrange(key, *_mirrored(start, stop))

    def lpush(self, key: str, *messages: bytes) -> None:
        self._kinds.append("lpush")
        self._pipeline.rpush(key, *messages)

    def lpos(self, key: str, value: bytes, rank: int) -> None:
        """Find a value; the length of the list must be read next, as it turns the index."""
        self._kinds.append("lpos")
        self._pipeline.lpos(key, value, rank=-rank)

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        replies = self._pipeline.execute(raise_on_error=raise_on_error)
        turned = list(replies)
        for i, (kind, reply) in enumerate(zip(self._kinds, replies, strict=True)):
            if kind == "lrange" and isinstance(reply, list):
                turned[i] = reply[::-1]
            elif kind == "lpos" and isinstance(reply, int):
                turned[i] = replies[i + 1] - 1 - reply
        return turned


def _mirrored(start: int, stop: int) -> tuple[int, int]:
    """Return the same range of a list, counted from its other end: 0 is -1, -1 is 0."""
    return -1 - stop, -1 - start
