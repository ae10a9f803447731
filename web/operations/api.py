"""Every operation of the API, in the order of the reference, and its routes."""

from flask import Blueprint

from web.operations.operation import QUEUE_PATH, Operation
from web.operations.push_and_pop import pop, push
from web.operations.reading import all_messages, count, delayed, events, reserved
from web.operations.reservations import ack, extend, release, reserve
from web.operations.results import get_result, store_result
from web.operations.service import events as queues_events
from web.operations.service import healthz, openapi, prometheus, queues
from web.operations.tidying import clear, move, pause, remove, restore, resume

OPERATIONS = (
    *(push, pop, count, all_messages, reserved, delayed, events, reserve, ack, release, extend),
    *(store_result, get_result, remove, clear, restore, move, pause, resume),
    *(queues, queues_events, healthz, prometheus, openapi),
)

api = Blueprint("api", __name__)
for _operation in OPERATIONS:
    for _path in _operation.paths:
        api.add_url_rule(_path, _operation.id, _operation, methods=[_operation.method])

_ON_QUEUES = {(one.method, one.name): one for one in OPERATIONS if not one.path}


def find_operation(method: str, path: str) -> tuple[Operation | None, str | None]:
    """Return the operation on a queue at a path, and the name of the queue (None: the default queue)."""
    if not path.startswith(QUEUE_PATH):
        return None, None
    name, slash, word = path[len(QUEUE_PATH) :].rpartition("/")
    return _ON_QUEUES.get((method, word)), name if slash else None
