"""A worker with `until_empty` ends when nothing waits and nothing is in hand."""

import asyncio

from seequeue import AsyncQueue, Queue

from tests.servers import App


def test_a_worker_ends_when_the_queue_is_empty(queue: Queue) -> None:
    queue.push_many(["a", "b", "again"])
    did: list[str] = []

    @queue.worker(concurrency=2, until_empty=True, retry_delay=0)
    def work(message: bytes) -> None:
        did.append(message.decode())
        if message == b"again" and did.count("again") == 1:
            raise ValueError

    work.run()
    assert sorted(did) == ["a", "again", "again", "b"]
    assert queue.count().reserved == queue.count().count == 0


def test_a_worker_of_tasks_ends_when_the_queue_is_empty(site: App, queue: Queue, name: str) -> None:
    queue.push_many(["a", "b"])
    did: list[bytes] = []

    async def run() -> None:
        async with AsyncQueue(name, url=site.url) as source:

            @source.worker(until_empty=True)
            async def work(message: bytes) -> None:
                did.append(bytes(message))

            await work.run()

    asyncio.run(run())
    assert did == [b"a", b"b"]
