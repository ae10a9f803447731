"""A Celery app for tests. Its worker is a process of its own; each task appends its number to a list, `done`."""

import os
from typing import Any

import redis
from celery import Celery

URL = os.environ.get("CELERY_URL", "redis://localhost")
app: Any = Celery("tests", broker=URL)
app.conf.update(
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=int(os.environ.get("CELERY_PREFETCH", "1")),
)


def _note(number: Any) -> None:
    """Append a number to the list of what was done, in the order of the work."""
    redis.Redis.from_url(URL).rpush("done", number)


note = app.task(_note, name="tests.web.celery_app.note")
