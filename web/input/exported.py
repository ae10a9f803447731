"""A line of an export: one message with what is known of it, as `export` writes it and `import` reads it."""

from collections.abc import Callable
from typing import Any

from broker.models import Details, Exported
from web.errors import ApiError
from web.input.codec import BOM, Limits, decode_message, validate_utf8
from web.input.object_list import convert_fields
from web.input.parameters import Choice, Integer, Message, Number, Text
from web.input.raw_json import compact_json, read_object

MAX_TIME = 253_402_300_799  # the last second of the year 9999
MAX_REASON = 1000  # characters

FIELDS = (
    Message("message", "The message.", required=True),
    Choice(
        "state",
        "Where it was. `import` lets a reserved message wait.",
        default="waiting",
        words=("waiting", "reserved", "delayed", "dead"),
    ),
    Integer("deliveries", "Number of deliveries so far.", default=0, maximum=1_000_000),
    Text("reason", "Why it failed last, if it failed.", default="", maximum=MAX_REASON),
    Number("failed", "Unix time of its last failure, unless it became a dead letter then.", maximum=MAX_TIME),
    Number("died", "Unix time at which it became a dead letter, even if it was moved back.", maximum=MAX_TIME),
    Number("deadline", "Unix time at which a delayed message joins the queue.", maximum=MAX_TIME),
)


def write_exported(one: Exported) -> dict[str, Any]:
    """Return the JSON object of a message, without the fields that have their default."""
    details = one.details
    known = {"deliveries": details.deliveries, "reason": details.reason, "failed": details.failed, "died": details.died}
    known["deadline"] = one.deadline
    return {"message": decode_message(one.message), "state": one.state} | {
        name: value for name, value in known.items() if value
    }


def read_exported(line: bytes, max_bytes: int, checkpoint: Callable[[], object]) -> Exported:
    """Return the message of a line, of up to `max_bytes` bytes; it can be empty, for it is not new.

    Raises:
        ApiError: the line is not valid (400), or the message is too large (413).
    """
    checkpoint()
    sent = read_object(compact_json(validate_utf8(line).removeprefix(BOM)))
    values = convert_fields(FIELDS, sent, "line", Limits(max_bytes, is_new=False), checkpoint)
    message, state, deadline = values.pop("message"), values.pop("state"), values.pop("deadline")
    if (deadline is None) == (state == "delayed"):
        sentence = "line: a delayed message has a deadline, and no other has one."
        raise ApiError("bad_parameter", sentence, parameter="line.deadline")
    return Exported(message, state, Details(**values), deadline or 0)
