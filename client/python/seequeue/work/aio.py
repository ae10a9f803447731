"""Move messages between the server and a hand with two tasks of an event loop: one reserves, the other settles."""

import asyncio
import contextlib
import math
import time
from typing import Any

from seequeue.drivers import AsyncDriver
from seequeue.errors import SeequeueError
from seequeue.work.hand import Job
from seequeue.work.link import CLOSE_SECONDS, Link, log
from seequeue.work.outcomes import Outcome

CHECK_SECONDS = 0.2  # between two looks at an event that is to stop a consumer
now = time.monotonic


class AsyncPump:
    """Fills and empties a hand. Any number of tasks of its event loop take jobs from it."""

    def __init__(self, link: Link[Any], driver: AsyncDriver) -> None:
        self.link, self.hand, self.driver = link, link.hand, driver
        self.loop = asyncio.get_running_loop()
        self.takers, self.fetcher, self.settler = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.is_fetching = True
        self.is_asking = False
        self.is_closing = False
        self.reason: str | None = None  # why what runs is given back at the end
        self.close_by = math.inf
        self.fetching = self.loop.create_task(self._guard(self._fetch()))
        self.settling = self.loop.create_task(self._guard(self._settle_to_the_end()))
        self.fetching.add_done_callback(self._fetched)

    # --- for those who work

    async def take(self, stop: Any = None) -> list[Job]:
        """Wait for the next jobs, and start them; [] when there will be no more. `stop` is an event that ends it."""
        jobs = self.hand.take(now())
        if not jobs:
            self.hand.idle += 1
            try:
                jobs = await self._wait_for_jobs(stop)
            finally:
                self.hand.idle -= 1
        if self.hand.want(now()):
            self.fetcher.set()
        return jobs

    async def _wait_for_jobs(self, stop: Any) -> list[Job]:
        while not (jobs := self.hand.take(now())):
            if stop is not None and stop.is_set():
                self.stop()
            if not self.is_fetching:
                return []
            self.takers.clear()
            self.fetcher.set()
            self.settler.set()  # what is finished need not linger
            await self._wait(self.takers, math.inf if stop is None else CHECK_SECONDS)
        return jobs

    async def _wait(self, event: asyncio.Event, seconds: float) -> None:
        """Wait for an event, for so many seconds at most."""
        timer = self.loop.call_later(max(seconds, 0.0), event.set) if seconds < math.inf else None
        try:
            await event.wait()
        finally:
            if timer:
                timer.cancel()

    def finish(self, job: Job, outcome: Outcome) -> None:
        """End a job. It is settled soon, with others."""
        kind, item, size = outcome
        self.hand.finish(job, kind, item, now(), size)
        self.settler.set()

    def give_back(self, job: Job, reason: str | None = None) -> None:
        """Release a job to the front of its queue."""
        self.hand.give_back(job, reason)
        self.settler.set()

    def renew(self, job: Job, *, is_on: bool) -> None:
        """Renew the lease of a job from now on, or not."""
        self.hand.renew(job, is_on=is_on)
        self.settler.set()

    def stop(self) -> None:
        """Take no more messages, and give back those that were not started. What runs may end."""
        if not self.hand.is_stopping:
            seconds = self.link.seconds_to_wait(now()) if self.is_asking else 0
            self.loop.call_later(seconds, self.fetching.cancel)
        self.hand.stop()
        if not self.is_fetching:
            self.hand.return_waiting()
        self.settler.set()

    def stop_soon(self) -> None:
        """Stop, called from any thread or from the handler of a signal."""
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            self.loop.call_soon_threadsafe(self.stop)

    def begin_to_close(self, reason: str | None = None, seconds: float = CLOSE_SECONDS) -> None:
        """Give back what is in hand, and let the tasks end by themselves."""
        self.stop()
        self.is_closing, self.reason, self.close_by = True, reason, now() + seconds
        self._give_back_running()
        self.settler.set()

    async def close(self, reason: str | None = None, seconds: float = CLOSE_SECONDS) -> None:
        """Give back what is in hand, settle what is finished, and end; for a server that is away wait that long."""
        self.begin_to_close(reason, seconds)
        await asyncio.wait([self.fetching, self.settling], timeout=seconds + 1)
        self.settling.cancel()  # if a server that hangs still has its request

    # --- the two tasks

    async def _guard(self, work: Any) -> None:
        """Run a task. An error that nobody foresaw ends the consumer, instead of leaving it without a task."""
        try:
            await work
        except Exception as error:
            log.exception("The consumer ends.")
            self.link.error = SeequeueError("internal", f"{type(error).__name__}: {error}")
            self.stop()

    def _fetched(self, _: Any) -> None:
        """Give back what waits, if this is a stop: no more will come that would be behind it in the queue."""
        self.is_fetching = False
        if self.hand.is_stopping:
            self.hand.return_waiting()
            self._give_back_running()
        self.takers.set()
        self.settler.set()

    def _give_back_running(self) -> None:
        if self.is_closing and not self.is_fetching:
            for job in [*self.hand.running][::-1]:
                self.hand.give_back(job, self.reason)

    async def _fetch(self) -> None:
        is_last = False  # whether the end is at an empty answer
        while True:
            while not (want := self.hand.want(now())) or (is_last and not self.hand.is_clear):
                self.fetcher.clear()
                await self.fetcher.wait()
            is_clear, self.is_asking, self.link.asked = self.hand.is_clear, True, now()
            try:
                messages = await self.driver.run(self.link.reserve(want))
            except SeequeueError as error:
                delay = self.link.failed(error)
                if delay is None:
                    self.link.error = error
                    self.hand.stop()
                    return
                self.is_asking = False
                await asyncio.sleep(delay)
                continue
            self.is_asking = False
            self.link.answered()
            self.hand.receive(messages, now())
            if self.hand.is_stopping:
                return
            self.takers.set()
            self.settler.set()  # there is a lease to renew
            if self.link.until_empty and not messages:
                if is_clear:
                    return
                is_last = True  # ask once more when nothing is in hand, as that may come back
            else:
                is_last = False

    async def _settle_to_the_end(self) -> None:
        """Settle also what is in hand when the event loop ends, and cancels its tasks."""
        try:
            await self._settle()
        except asyncio.CancelledError:
            if now() > self.close_by:
                raise
            if not self.is_closing:
                self.begin_to_close()
            await self._settle()

    async def _settle(self) -> None:
        while True:
            while not (request := self.hand.settlement(now())):
                left = len(self.hand.finished) + len(self.hand.returned)
                if self.is_closing and not self.is_fetching and (not left or now() > self.close_by):
                    self.link.report_given_up(left)
                    return
                self.settler.clear()
                await self._wait(self.settler, min(self.hand.next_time(), self.close_by + 0.01) - now())
            try:
                answer = await self.driver.run(self.link.settle(request))
            except asyncio.CancelledError:
                self.hand.unanswered(request, now())
                raise
            except SeequeueError as error:
                self.link.failed(error)
                self.link.report_given_up(len(self.hand.unanswered(request, now())))
                continue
            self.link.answered()
            self.link.report_lost(self.hand.settled(request, answer))
            self.fetcher.set()
