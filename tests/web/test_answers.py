"""Long answers without HTTP: how lists of messages become JSON and NDJSON, one chunk at a time."""

import json

from hypothesis import given
from hypothesis import strategies as st

from broker.queue import ReliableQueue
from tests.broker.helpers import numbered
from tests.servers import FakeRedis
from web import answers
from web.input.codec import decode_message


def test_empty_chunks_leave_the_json_valid() -> None:
    cases: list[list[list[str]]] = [[[], ["a"]], [["a"], []], [["a"], [], ["b"]], [[], []], []]
    for chunks in cases:
        text = b"".join(answers.as_json(chunks, {"count": 3}))
        expected = [value for chunk in chunks for value in chunk]
        assert json.loads(text) == {"success": True, "messages": expected, "count": 3}


def test_previews_of_a_shrinking_queue_are_complete_json(name: str) -> None:
    queue = ReliableQueue(FakeRedis(), name)
    queue.push(*numbered(1500))
    chunks = answers.iter_previews(queue, 0, 1500, 5)
    text = b""
    for part in answers.as_json(chunks, {"count": 1500}):
        text += part
        queue.client.rpop(queue.key, 600)
    assert json.loads(text)["success"] is True


PARTS = [b"a", b'"', b"\\", b"\n", b"\x00", b"\x1f", b"\x7f", b"\xff", "é".encode(), b'","', b'"\n"', b""]


@given(st.lists(st.lists(st.sampled_from(PARTS)).map(b"".join), min_size=1))
def test_any_messages_become_their_json_values(messages: list[bytes]) -> None:
    values = [decode_message(message) for message in messages]
    answer = b"".join(answers.as_json([messages], {"count": 1}))
    assert json.loads(answer) == {"success": True, "messages": values, "count": 1}
    lines = b"".join(answers.as_ndjson([messages])).split(b"\n")
    assert [json.loads(line) for line in lines[:-1]] == values
    assert lines[-1] == b""
