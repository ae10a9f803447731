"""Workers: a function that is called with each message, by threads, by tasks of an event loop, or in a process pool."""

import asyncio
import contextlib
import functools
import importlib
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from seequeue.core.protocol import MAX_BATCH, check_lease, check_number, check_wait
from seequeue.errors import LeaseExpired
from seequeue.work import background, signals
from seequeue.work.aio import AsyncPump
from seequeue.work.hand import Hand, Job
from seequeue.work.link import Link, log
from seequeue.work.outcomes import NOTHING, Events, Outcome, RetryDelay, backoff, success
from seequeue.work.threads import Pump

YIELD_SECONDS = 0.001  # after which the tasks of a worker let others run

Pool = Executor | Callable[[], Executor]


@dataclass(frozen=True)
class WorkerOptions:
    """What `worker` was given."""

    names: tuple[str, ...]
    concurrency: int
    batch: int
    lease: float
    wait: float
    grace: float
    by: str | None
    until_empty: bool
    executor: Pool | None
    events: Events


def worker(
    *more_queues: str,
    concurrency: int = 1,
    batch: int = 1,
    lease: float = 30,
    wait: float = 20,
    grace: float = 30,
    by: str | None = None,
    retry_delay: RetryDelay = backoff,
    until_empty: bool = False,
    executor: Pool | None = None,
    on_start: Callable[[Any], object] | None = None,
    on_done: Callable[[Any, Any], object] | None = None,
    on_retry: Callable[[Any, BaseException, float], object] | None = None,
    on_reject: Callable[[Any, BaseException], object] | None = None,
) -> WorkerOptions:
    """Make a worker of a function; `run()` calls it with each message until SIGTERM, Ctrl-C or `stop()`.

        @queue.worker(concurrency=4)
        def work(message):
            send(message.json())

        work.run()

    The lease of `lease` seconds (1 to 43,200) is renewed while the function runs. If it returns, the message is acked;
    if the message is a JSON object with a field `job`, what the function returned is stored as the result of that job.
    If it raises an error, the message is delivered again after `retry_delay`: seconds, or a function of the number of
    deliveries; by default 1 to 2 seconds, doubling each time. The reason is kept. After the last delivery, or at once
    for a `Reject`, the message becomes a dead letter, and the producer of the job gets the reason.

    `concurrency` is the number of threads, or of tasks of an AsyncQueue, whose function can be a coroutine function.
    With `batch` above 1 the function is called with a list of 1 to `batch` messages of one queue: an error is that of
    all which it has not acked, released or rejected itself. Those are then delivered one by one. `executor` runs the
    function elsewhere: a ProcessPoolExecutor, or a function that makes one, so that a broken one is replaced.

    At the end the function may finish for `grace` seconds; then its messages go back to the front of the queue, as
    those do at once that were reserved ahead, while the work is quick. `more_queues` are taken from when those before
    are empty; one request for a message waits for `wait` seconds (0 to 60). `by` is the name to show, by default
    host:pid. `until_empty` ends the worker when there is no message. While the server is away the worker waits for it,
    with one warning.

    The hooks are called with the message; `on_done` also with what the function returned, `on_retry` with the error and
    the delay in seconds, `on_reject` with the error of a message that becomes a dead letter.
    """
    check_number("concurrency", concurrency, 1, 10_000)
    check_number("batch", batch, 1, MAX_BATCH)
    check_number("grace", grace, 0, 86_400)
    events = Events(retry_delay=retry_delay, on_start=on_start, on_done=on_done, on_retry=on_retry, on_reject=on_reject)
    return WorkerOptions(
        more_queues, concurrency, batch, check_lease(lease), check_wait(wait), grace, by, until_empty, executor, events
    )


class _Worker:
    """What workers of threads and of tasks share."""

    __name__: str

    def __init__(self, client: Any, options: WorkerOptions, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.client, self.options, self.function = client, options, function
        self.hand = Hand(slots=options.concurrency, batch=options.batch, lease=options.lease)
        self.link: Link[Any] = Link(
            client,
            self.hand,
            names=options.names,
            wait=options.wait,
            by=options.by,
            until_empty=options.until_empty,
        )
        self.fatal: BaseException | None = None
        self.pool = options.executor if isinstance(options.executor, Executor) else None
        self.pool_lock = threading.Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, as a test would."""
        return self.function(*args, **kwargs)

    def _argument(self, jobs: list[Job]) -> Any:
        """Return what the function is called with."""
        messages = [job.message for job in jobs]
        for message in messages:
            self.options.events.call(self.options.events.on_start, message)
        return messages if self.options.batch > 1 else messages[0]

    def _done(self, job: Job, result: Any) -> Outcome:
        """Return the outcome of a job whose function returned."""
        self.options.events.call(self.options.events.on_done, job.message, result)
        if job.message.is_settled:
            return NOTHING
        return success(job.message, result, has_result=self.options.batch == 1)

    def _failed(self, job: Job, error: BaseException) -> Outcome:
        """Return the outcome of a job whose function raised an error."""
        message = job.message
        if not message.is_settled:
            return self.options.events.failed(message, error)
        if isinstance(error, LeaseExpired):
            log.warning("The lease of message %s ended before it was done, so it is delivered again.", message.id)
        else:
            log.warning("The work on a message that was settled already failed.", exc_info=error)
        return NOTHING

    # --- an executor

    def _executor(self) -> Executor:
        """Return the pool, made when it is first needed, and again when it has broken."""
        with self.pool_lock:
            if self.pool is None:
                make = self.options.executor
                assert make is not None and not isinstance(make, Executor)
                self.pool = make()
            return self.pool

    def _call(self, pool: Executor) -> Callable[[Any], Any]:
        """Return what to submit to a pool: the function, found by its name where it cannot be sent."""
        if not isinstance(pool, ProcessPoolExecutor):
            return self.function
        if "<" in self.function.__qualname__:
            raise ValueError("A process pool needs a function at the top of its module.")
        return functools.partial(_call_there, self.function.__module__, self.function.__qualname__)

    def _broken(self, pool: Executor, error: BaseException) -> None:
        """Forget a pool that has broken, as when one of its processes was killed; end the worker if it was given."""
        with self.pool_lock:
            if isinstance(self.options.executor, Executor):
                self.fatal = error
                self.stop()
            elif self.pool is pool:
                self.pool = None
                pool.shutdown(wait=False)

    def stop(self) -> None:
        raise NotImplementedError

    def _end_pool(self) -> None:
        if self.pool and not isinstance(self.options.executor, Executor):
            self.pool.shutdown(wait=False, cancel_futures=True)

    def _check(self) -> None:
        """Raise what ended the worker, if it was an error."""
        if error := self.fatal or self.link.error:
            raise error


def _call_there(module: str, name: str, argument: Any) -> Any:
    """Call a function, or that of a worker, in the process of a pool."""
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return (found.function if isinstance(found, _Worker) else found)(argument)


class Worker(_Worker):
    """A worker of threads. It runs once."""

    def __init__(self, client: Any, options: WorkerOptions, function: Callable[..., Any]) -> None:
        super().__init__(client, options, function)
        if inspect.iscoroutinefunction(function):
            raise TypeError("A coroutine function needs the worker of an AsyncQueue.")
        self._stopped = threading.Event()
        self._pump: Pump | None = None

    def stop(self) -> None:
        """Begin to end: `run` returns when the function has finished, or after the grace. Any thread may call it."""
        self._stopped.set()
        if self._pump:
            self._pump.stop()

    def run(self) -> None:
        """Call the function with each message, until SIGTERM, Ctrl-C or `stop()`.

        Raises:
            SeequeueError: the server refuses for good: the token is wrong, or the key is not a list.
            BaseException: what the function raised, if it was no Exception, such as SystemExit.
        """
        if self._stopped.is_set():
            return
        if self.options.executor:
            self._call(self._executor())  # fails now, if it must
        self._pump = pump = Pump(self.link, self.client.driver)
        threads = [
            threading.Thread(target=self._work, args=(pump,), daemon=True, name=f"seequeue-worker-{number}")
            for number in range(self.options.concurrency)
        ]
        grace = self.options.grace
        with signals.stopping(lambda: background.later(self.stop)):
            try:
                for thread in threads:
                    thread.start()
                self._stopped.wait()
            except KeyboardInterrupt:
                self.stop()
            try:
                _join(threads, grace)
            finally:  # a second Ctrl-C
                pump.close()
                self._end_pool()
        self._check()

    def _work(self, pump: Pump) -> None:
        try:
            while jobs := pump.take():
                self._do(pump, jobs)
        finally:
            self._stopped.set()

    def _do(self, pump: Pump, jobs: list[Job]) -> None:
        try:
            result = self._run(self._argument(jobs))
        except Exception as error:
            outcomes = [self._failed(job, error) for job in jobs]
        except BaseException as error:  # SystemExit, GeneratorExit: the jobs are given back at the end
            self.fatal = error
            self.stop()
            return
        else:
            outcomes = [self._done(job, result) for job in jobs]
        for job, outcome in zip(jobs, outcomes, strict=True):
            pump.finish(job, outcome)

    def _run(self, argument: Any) -> Any:
        if self.options.executor is None:
            return self.function(argument)
        pool = self._executor()
        try:
            return pool.submit(self._call(pool), argument).result()
        except BrokenExecutor as error:
            self._broken(pool, error)
            raise


def _join(threads: Iterable[threading.Thread], seconds: float) -> None:
    end = time.monotonic() + seconds
    for thread in threads:
        if thread.ident is not None:
            thread.join(max(0.0, end - time.monotonic()))


class AsyncWorker(_Worker):
    """A worker of tasks under asyncio. It runs once."""

    def __init__(self, client: Any, options: WorkerOptions, function: Callable[..., Any]) -> None:
        if not inspect.iscoroutinefunction(function) and options.executor is None:
            threads = functools.partial(ThreadPoolExecutor, options.concurrency)  # so that the loop never stands still
            options = WorkerOptions(**{**vars(options), "executor": threads})
        super().__init__(client, options, function)
        self._is_stopped = False
        self._stopped: asyncio.Event | None = None
        self._pump: AsyncPump | None = None
        self._yielded = 0.0

    def stop(self) -> None:
        """Begin to end: `run` returns when the function has finished, or after the grace. Any thread may call it."""
        self._is_stopped = True
        if self._pump and self._stopped:
            self._pump.stop_soon()
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                self._pump.loop.call_soon_threadsafe(self._stopped.set)

    async def run(self) -> None:
        """Call the function with each message, until SIGTERM, Ctrl-C or `stop()`. Cancelling it ends it in order, too.

        Raises:
            SeequeueError: the server refuses for good: the token is wrong, or the key is not a list.
            BaseException: what the function raised, if it was no Exception, such as SystemExit.
        """
        if self._is_stopped:
            return
        if self.options.executor:
            self._call(self._executor())  # fails now, if it must
        self._stopped = asyncio.Event()
        self._pump = pump = AsyncPump(self.link, self.client.driver)
        tasks = [pump.loop.create_task(self._work(pump)) for _ in range(self.options.concurrency)]
        with signals.stopping(self.stop):
            try:
                await self._stopped.wait()
            finally:  # also if it is cancelled
                pump.stop()
                await self._end(pump, tasks)
        self._check()

    async def _end(self, pump: AsyncPump, tasks: list["asyncio.Task[None]"]) -> None:
        """Let the tasks finish within the grace, and settle everything."""
        await asyncio.wait(tasks, timeout=self.options.grace)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=1)
        await pump.close()
        self._end_pool()

    async def _work(self, pump: AsyncPump) -> None:
        assert self._stopped
        try:
            while jobs := await pump.take():
                await self._do(pump, jobs)
                if time.monotonic() - self._yielded > YIELD_SECONDS:
                    await asyncio.sleep(0)
                    self._yielded = time.monotonic()
        finally:
            self._stopped.set()

    async def _do(self, pump: AsyncPump, jobs: list[Job]) -> None:
        try:
            result = await self._run(self._argument(jobs))
        except Exception as error:
            outcomes = [self._failed(job, error) for job in jobs]
        except asyncio.CancelledError as error:
            if self.hand.is_stopping:
                raise  # the jobs are given back at the end
            outcomes = [self._failed(job, error) for job in jobs]  # the function cancelled something, not us
        except BaseException as error:  # SystemExit, GeneratorExit: the jobs are given back at the end
            self.fatal = error
            self.stop()
            return
        else:
            outcomes = [self._done(job, result) for job in jobs]
        for job, outcome in zip(jobs, outcomes, strict=True):
            pump.finish(job, outcome)

    def _run(self, argument: Any) -> Awaitable[Any]:
        if self.options.executor is None:
            return self.function(argument)  # type: ignore[no-any-return]
        return self._run_elsewhere(argument)

    async def _run_elsewhere(self, argument: Any) -> Any:
        pool = self._executor()
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, self._call(pool), argument)
        except BrokenExecutor as error:
            self._broken(pool, error)
            raise
