"""result: store and return the result of a job, which its producer names in the message."""

from dataclasses import replace

from broker.queue import ReliableQueue
from broker.queue.settle import RESULT_SECONDS
from web.input.codec import decode_message
from web.input.parameters import AsciiName, Integer
from web.live.disconnects import ClientConnection
from web.operations.operation import Answer, Example, operation
from web.operations.schemas import NOTHING, message, success, text, unix_time
from web.operations.shared import MAX_DELAY, MESSAGE_ERRORS, RESULT, RESULTS, WAIT, WAITING_ERRORS, nothing
from web.request import Request

JOB = AsciiName("job", "Name of the job, chosen by its producer.", required=True)


@operation(
    "POST",
    RESULTS,
    JOB,
    replace(RESULT, required=True),
    Integer(
        "keep", "How long to keep the result.", default=RESULT_SECONDS, minimum=1, maximum=MAX_DELAY, unit="seconds"
    ),
    name="result",
    id="store_result",
    answers=(success("ResultStored", {"job": text("Name of the job.")}),),
    errors=(*MESSAGE_ERRORS, "redis_full"),
    example=Example({"success": True, "job": "sum-1"}, {"job": "sum-1", "result": 42}),
)
def store_result(request: Request, queue: ReliableQueue, job: str, result: bytes, keep: int) -> Answer:
    """Store the result of a job, replacing an earlier one.

    A producer names a job in its message, a worker stores the result under that name, and the producer fetches it. A
    worker that has reserved the message can send `job` and `result` with its `ack` instead: one atomic step.
    """
    queue.store_result(job, result, keep)
    return {"success": True, "job": job}


@operation(
    "GET",
    RESULTS,
    JOB,
    WAIT,
    name="result",
    id="get_result",
    answers=(
        success(
            "Result",
            {"job": text("Name of the job."), "result": message("The result."), "at": unix_time("When it was stored.")},
        ),
        success(
            "JobFailed",
            {
                "job": text("Name of the job."),
                "failed": text("The reason with which its message became a dead letter."),
                "at": unix_time("When it failed."),
            },
            when="if the job failed",
        ),
        NOTHING,
    ),
    errors=("no_result", *WAITING_ERRORS),
    example=Example({"success": True, "job": "sum-1", "result": "42", "at": 1795489534.5}, {"job": "sum-1", "wait": 5}),
)
def get_result(request: Request, queue: ReliableQueue, job: str, wait: float) -> Answer:
    """Return the result of a job, or why it failed.

    It is kept until it expires, so it can be fetched again. A job has failed if its message was released with `job` and
    became a dead letter.
    """
    found = request.services.long_poll.result(queue, job, wait, ClientConnection(request.environ))
    if found is None:
        return nothing("no_result")
    outcome = {"result": decode_message(found.result)} if found.failed is None else {"failed": found.failed}
    return {"success": True, "job": job, **outcome, "at": found.at}
