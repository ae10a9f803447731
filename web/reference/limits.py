"""The limits of the API, for docs/api.md: each with its value, its setting, and the error code beyond it."""

from broker.keys import NAME_RULE
from broker.listing import LIST_TIMEOUT, MAX_QUEUES
from broker.queue.settle import RESULT_SECONDS
from settings import Settings
from web.input.body import BODY_TIMEOUT, MAX_FORM_FIELDS, MIN_BYTES_PER_SECOND
from web.input.parameters import MAX_NAMES, MessageList
from web.input.raw_json import MAX_DEPTH, MAX_VALUES
from web.live.long_poll import ANSWER_TIMEOUT, MAX_WAIT
from web.operations.operation import MAX_FIELDS_BYTES
from web.operations.shared import LEASE, MAX_BATCH, MAX_DELAY, MAX_LEASE, MAX_TEXT

DAY = 86_400


def size(number: int) -> str:
    """Return a number of bytes in words."""
    return f"{number >> 20} MiB" if number >= 1 << 20 else f"{number >> 10} KiB"


LIMITS = [
    ("Queue name", NAME_RULE.replace("A-Z", "`A-Z") + "`", "", "`bad_name`"),
    ("Queues in the path of one `pop` or `reserve`", str(MAX_NAMES), "", "`bad_name`"),
    ("Message", f"1 byte to {size(Settings.max_message_bytes)}", "`MAX_MESSAGE_BYTES`", "`message_too_large`"),
    ("Body with messages", size(Settings.max_body_bytes), "`MAX_BODY_BYTES`", "`body_too_large`"),
    ("Body without messages", size(MAX_FIELDS_BYTES), "", "`body_too_large`"),
    ("Stream of lines", "any length", "", ""),
    ("`messages` of a push", f"{MessageList.maximum:,}", "", "`too_many_messages`"),
    ("JSON values in `messages`", f"{MAX_VALUES:,}", "", "`too_many_values`"),
    ("Nesting of a JSON message", f"{MAX_DEPTH} levels", "", "`too_deep`"),
    ("Fields of a form", f"{MAX_FORM_FIELDS:,}", "", "`bad_form`"),
    (
        "Time for a body to arrive",
        f"{BODY_TIMEOUT:.0f} seconds, and one more for each {size(MIN_BYTES_PER_SECOND)}",
        "",
        "`body_timeout`",
    ),
    ("URL, or one header", "8,190 bytes", "", "`uri_too_long`, `request_header_fields_too_large`"),
    ("Messages of one `pop` or `reserve`", f"{MAX_BATCH:,}, or 16 MiB", "", "`bad_parameter`"),
    ("Ids of one `ack`, `release`, `extend` or `settle`", f"{MAX_BATCH:,}", "", "`bad_parameter`"),
    ("Wait", f"{MAX_WAIT:.0f} seconds; answered after {ANSWER_TIMEOUT:.0f}", "", "`bad_parameter`"),
    ("Lease", f"1 second to {MAX_LEASE // 3600} hours; {LEASE.default} seconds by default", "", "`bad_parameter`"),
    ("Delay", f"{MAX_DELAY // DAY} days", "", "`bad_parameter`"),
    ("Deliveries before a message is a dead letter", str(Settings.max_deliveries), "`MAX_DELIVERIES`", ""),
    ("Reason of a failure, text to search for", f"{MAX_TEXT:,} characters", "", "`bad_parameter`"),
    ("`Idempotency-Key`", "1 to 255 visible ASCII characters, kept for 24 hours", "", "`bad_idempotency_key`"),
    ("Undo of `clear` and `remove`", "one hour, once", "", "`stale`"),
    ("Repeated `ack` of the same id", "one hour, for the last 10,000 ids of a queue", "", "`stale`"),
    ("Result of a job", f"{RESULT_SECONDS // DAY} day by default, up to {MAX_DELAY // DAY} days", "", "`no_result`"),
    (
        "Blocked clients and event streams, per process",
        f"{Settings.max_blocked_clients:,}",
        "`MAX_BLOCKED_CLIENTS`",
        "`too_many_blocked_clients`",
    ),
    ("Queues in a list", f"{MAX_QUEUES:,}, found within {LIST_TIMEOUT} seconds", "", "`complete` is false"),
]
