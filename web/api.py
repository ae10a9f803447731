"""Every operation of the API, in the order of the reference, and its routes."""

from pathlib import Path

from flask import Blueprint

from web.operations import push_and_pop, reading, reservations, results, service, tidying
from web.operations.operation import QUEUE_PATH, Operation
from web.reference import markdown, openapi

# Within a module, in the order of definition.
OPERATIONS = [
    one
    for module in (push_and_pop, reading, reservations, results, tidying, service, openapi)
    for one in vars(module).values()
    if isinstance(one, Operation)
]

api = Blueprint("api", __name__)
for _operation in OPERATIONS:
    for _path in _operation.paths:
        api.add_url_rule(_path, _operation.id, _operation, methods=[_operation.method])

_ON_QUEUES = {(one.method, one.name): one for one in OPERATIONS if not one.path}


def find_operation(method: str, path: str) -> tuple[Operation | None, str | None]:
    """Return the queue operation that a path names, if any, and the name of its queue (None: the default queue)."""
    if not path.startswith(QUEUE_PATH):
        return None, None
    name, slash, word = path[len(QUEUE_PATH) :].rpartition("/")
    return _ON_QUEUES.get((method, word)), name if slash else None


if __name__ == "__main__":  # make docs
    file = Path(__file__).parent.parent / "docs/api.md"
    file.write_text(markdown.reference(OPERATIONS), encoding="utf-8")
