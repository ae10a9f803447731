"""Move messages between the server and a hand with two threads: one reserves, the other settles and renews."""

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from seequeue.drivers import Driver, PollDriver
from seequeue.errors import SeequeueError
from seequeue.work import background
from seequeue.work.hand import Job
from seequeue.work.link import CLOSE_SECONDS, Link, log
from seequeue.work.outcomes import Outcome

CHECK_SECONDS = 0.2  # between two looks at an event that is to stop a consumer
now = time.monotonic

_inner = threading.local()  # whether the thread is one of a pump


def is_inner() -> bool:
    """Return whether this is a thread of a pump: it must not wait for the end of one."""
    return getattr(_inner, "is_pump", False)


class Pump:
    """Fills and empties a hand. Any number of threads take jobs from it; each place to work is a thread that takes."""

    def __init__(self, link: Link[Any], driver: Driver) -> None:
        self.link, self.hand, self.driver = link, link.hand, driver
        self.poll = PollDriver(driver.headers)
        self.lock = threading.RLock()  # the handler of a signal may run while its thread holds it
        self.takers, self.fetcher, self.settler = (threading.Condition(self.lock) for _ in range(3))
        self.is_fetching = True
        self.is_closing = False
        self.must_stop = False
        self.pid = os.getpid()
        self.threads = [
            threading.Thread(target=self._guard, args=(work,), daemon=True, name=f"seequeue-{work.__name__[1:]}")
            for work in (self._fetch, self._settle)
        ]
        for thread in self.threads:
            thread.start()
        _open.add(self)
        background.start()

    # --- for those who work

    def take(self, stop: Any = None) -> list[Job]:
        """Wait for the next jobs, and start them; [] when there will be no more. `stop` is an event that ends it."""
        with self.lock:
            if self.must_stop:
                self.stop()
            jobs = self.hand.take(now())
            if not jobs:
                jobs = self._wait_for_jobs(stop)
            if self.hand.want(now()):
                self.fetcher.notify()
        return jobs

    def _wait_for_jobs(self, stop: Any) -> list[Job]:
        self.hand.idle += 1
        try:
            while not (jobs := self.hand.take(now())):
                if stop is not None and stop.is_set():
                    self.stop()
                if not self.is_fetching:
                    return []
                self.fetcher.notify()
                self.settler.notify()  # what is finished need not linger
                self.takers.wait(None if stop is None else CHECK_SECONDS)
        finally:
            self.hand.idle -= 1
        return jobs

    def finish(self, job: Job, outcome: Outcome) -> None:
        """End a job. It is settled soon, with others."""
        kind, item, size = outcome
        with self.lock:
            self.hand.finish(job, kind, item, now(), size)
            self._wake_settler()

    def give_back(self, job: Job, reason: str | None = None) -> None:
        """Release a job to the front of its queue."""
        with self.lock:
            self.hand.give_back(job, reason)
            self._wake_settler()

    def _wake_settler(self) -> None:
        if len(self.hand.finished) == 1 or not self.hand.waiting:
            self.settler.notify()

    def renew(self, job: Job, *, is_on: bool) -> None:
        """Renew the lease of a job from now on, or not."""
        with self.lock:
            self.hand.renew(job, is_on=is_on)
            self.settler.notify()

    def stop(self) -> None:
        """Take no more messages, and give back those that were not started. What runs may end. Does not block."""
        if self.pid != os.getpid():
            return  # a child of a fork shares the connection with its parent
        with self.lock:
            is_first, self.must_stop = not self.hand.is_stopping, True
            self.hand.stop()
            if not self.is_fetching:
                self.hand.return_waiting()
            for one in (self.takers, self.fetcher, self.settler):
                one.notify_all()
        if is_first and self.is_fetching:
            timer = threading.Timer(self.link.seconds_to_wait(now()), self.poll.interrupt)
            timer.daemon = True
            with contextlib.suppress(RuntimeError):  # the interpreter ends: close() does it
                timer.start()

    def stop_at_signal(self) -> None:
        """Stop, called by the handler of a signal, which may have interrupted the holder of the lock."""
        self.must_stop = True
        background.later(self.stop)

    def close(self, reason: str | None = None, seconds: float = CLOSE_SECONDS) -> None:
        """Give back what is in hand, settle what is finished, and end; for a server that is away wait that long."""
        if self.pid != os.getpid():
            return  # a child of a fork: the messages are its parent's
        end = now() + seconds
        self.stop()
        fetching, settling = self.threads
        fetching.join(self.link.seconds_to_wait(now()))
        self.poll.interrupt()
        fetching.join(seconds)
        with self.lock:
            self.hand.return_waiting()
            for job in [*self.hand.running][::-1]:
                self.give_back(job, reason)
            self.is_closing = True
            self.settler.notify()
        settling.join(max(0.0, end - now()))
        with self.lock:
            left = len(self.hand.finished) + len(self.hand.returned) + len(self.hand.settling)
            self.hand.finished.clear()
            self.hand.returned.clear()
        self.link.report_given_up(left)
        self.poll.close()
        _open.discard(self)

    # --- the two threads

    def _guard(self, work: Callable[[], None]) -> None:
        """Run a thread. An error that nobody foresaw ends the consumer, instead of leaving it without a thread."""
        _inner.is_pump = True
        try:
            work()
        except Exception as error:
            log.exception("The consumer ends.")
            self.link.error = SeequeueError("internal", f"{type(error).__name__}: {error}")
            self.stop()
        finally:
            if work == self._fetch:
                self._fetched()

    def _fetched(self) -> None:
        """Give back what waits, if this is a stop: no more will come that would be behind it in the queue."""
        with self.lock:
            self.is_fetching = False
            if self.hand.is_stopping:
                self.hand.return_waiting()
            self.takers.notify_all()
            self.settler.notify()

    def _fetch(self) -> None:
        is_last = False  # whether the end is at an empty answer
        while True:
            with self.lock:
                while not self.hand.is_stopping and not self._may_ask(is_last):
                    self.fetcher.wait()
                if self.hand.is_stopping:
                    return
                want, is_clear = self.hand.want(now()), self.hand.is_clear
                self.link.asked = now()
            try:
                messages = self.poll.run(self.link.reserve(want))
            except SeequeueError as error:
                if self.hand.is_stopping:
                    return
                delay = self.link.failed(error)
                if delay is None:
                    self.link.error = error
                    self.stop()
                    return
                with self.lock:
                    self.fetcher.wait_for(lambda: self.hand.is_stopping, delay)
                continue
            self.link.answered()
            with self.lock:
                self.hand.receive(messages, now())
                self.takers.notify(len(messages))
                self.settler.notify()  # there is a lease to renew
            if self.link.until_empty and not messages:
                if is_clear:
                    return
                is_last = True  # ask once more when nothing is in hand, as that may come back
            else:
                is_last = False

    def _may_ask(self, is_last: bool) -> bool:
        return self.hand.want(now()) > 0 and (self.hand.is_clear or not is_last)

    def _settle(self) -> None:
        while True:
            with self.lock:
                while not (request := self.hand.settlement(now())):
                    if self.is_closing and not self.hand.finished and not self.hand.returned:
                        return
                    seconds = self.hand.next_time() - now()
                    self.settler.wait(min(max(seconds, 0.0), threading.TIMEOUT_MAX))
            try:
                answer = self.driver.run(self.link.settle(request))
            except SeequeueError as error:
                self.link.failed(error)
                with self.lock:
                    given_up = self.hand.unanswered(request, now())
                self.link.report_given_up(len(given_up))
                continue
            self.link.answered()
            with self.lock:
                lost = self.hand.settled(request, answer)
                self.fetcher.notify()
            self.link.report_lost(lost)


_open: "weakref.WeakSet[Pump]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Give back what consumers that were not closed have in hand, when the process exits."""
    for pump in list(_open):
        with contextlib.suppress(Exception):
            pump.close()
