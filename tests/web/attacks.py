"""Clients that try to lock others out. They run in a separate process, so that they share no lock with the test:

python -m tests.web.attacks 5000 60 tiny_chunks drip
"""

import asyncio
import contextlib
import resource
import sys
import time
from collections.abc import Awaitable, Callable

HOST = "Host: localhost\r\n"
FORM = "Content-Type: application/x-www-form-urlencoded\r\n"
JSON = "Content-Type: application/json\r\n"


class Client:
    """A client that opens one connection after another."""

    def __init__(self, port: int, end: float) -> None:
        self.port, self.end = port, end

    @property
    def is_attacking(self) -> bool:
        return time.monotonic() < self.end

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def post(self, path: str, headers: str, body: bytes, short: int = 0) -> None:
        """Send a request whose body lacks `short` bytes, and read until the connection ends."""
        reader, writer = await self.open()
        with contextlib.closing(writer):
            head = f"POST {path} HTTP/1.1\r\n{HOST}{headers}Connection: close\r\n"
            head += f"Content-Length: {len(body) + short}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            await reader.read()


async def escapes(client: Client) -> None:
    """1: a form of 16 MiB of percent signs."""
    await client.post("/login", FORM, b"token=" + b"%" * (16 << 20))


async def push_escapes(client: Client) -> None:
    """1: the same in a form that is allowed to be that large."""
    await client.post("/api/queue/attacked/push", FORM, b"message=" + b"%zz%41" * ((16 << 20) // 6 - 2))


async def tiny_chunks(client: Client) -> None:
    """2: an endless body of one-byte chunks."""
    await _endless(client, f"POST /login HTTP/1.1\r\n{HOST}{FORM}Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n")


async def tiny_lines(client: Client) -> None:
    """2: the same as a stream of lines, which the app reads."""
    head = f"POST /api/queue/attacked/push?each=line HTTP/1.1\r\n{HOST}Content-Type: text/plain\r\n"
    await _endless(client, f"{head}Transfer-Encoding: chunked\r\n\r\n", b"1\r\n\n\r\n")


async def pipelined(client: Client) -> None:
    """3: pipelined requests that need no Redis."""
    await _endless(
        client, "", f"GET /login HTTP/1.1\r\n{HOST}\r\nGET /static/js/home.js HTTP/1.1\r\n{HOST}\r\n".encode()
    )


async def pipelined_unread(client: Client) -> None:
    """3: the same, and the client reads no response."""
    await _endless(client, "", f"GET /login HTTP/1.1\r\n{HOST}\r\n".encode(), reads=False)


async def _endless(client: Client, head: str, repeated: bytes, reads: bool = True) -> None:
    reader, writer = await client.open()
    reading = asyncio.ensure_future(_read_all(reader)) if reads else None
    with contextlib.closing(writer):
        writer.write(head.encode())
        while client.is_attacking:
            writer.write(repeated * 2000)
            await writer.drain()
    if reading:
        await reading


async def _read_all(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(1 << 16):
            pass


async def drip(client: Client) -> None:
    """4: a refused request that keeps sending a byte every 3 seconds."""
    await _drip(client, f"POST /api/queue/attacked/nothing HTTP/1.1\r\n{HOST}Content-Length: 1000000\r\n\r\n")


async def drip_head(client: Client) -> None:
    """4: the head of a request, a byte every 3 seconds."""
    await _drip(client, "GET / HTTP/1.1\r\nX: ")


async def drip_body(client: Client) -> None:
    """4: a valid body, a byte every 3 seconds."""
    await _drip(client, f"POST /api/queue/attacked/push HTTP/1.1\r\n{HOST}{JSON}Content-Length: 1000\r\n\r\n")


async def silence(client: Client) -> None:
    """4: a connection and nothing else."""
    await _drip(client, "", b"")


async def _drip(client: Client, head: str, repeated: bytes = b"x") -> None:
    _, writer = await client.open()
    with contextlib.closing(writer):
        writer.write(head.encode())
        while client.is_attacking and not writer.is_closing():
            writer.write(repeated)
            await writer.drain()
            await asyncio.sleep(3)


async def unread(client: Client) -> None:
    """5: a response with all messages, not read."""
    await _drip(client, f"GET /api/queue/large/all HTTP/1.1\r\n{HOST}\r\n", b"")


async def unread_lines(client: Client) -> None:
    """5: the same as lines."""
    await _drip(client, f"GET /api/queue/large/all HTTP/1.1\r\n{HOST}Accept: application/x-ndjson\r\n\r\n", b"")


async def unfinished(client: Client) -> None:
    """5: a large body that never ends."""
    await client.post("/login", FORM, b"token=" + b"x" * (15 << 20), short=1)


async def unfinished_push(client: Client) -> None:
    """5: the same where large bodies are allowed."""
    await client.post("/api/queue/attacked/push", JSON, b'{"message":"' + b"x" * (15 << 20), short=1)


async def many_keys(client: Client) -> None:
    """5: JSON with 990,000 keys."""
    await client.post("/api/queue/attacked/push", JSON, MANY_KEYS)


async def many_lists(client: Client) -> None:
    """5: JSON with 5.5 million empty lists."""
    await client.post("/api/queue/attacked/push", JSON, b'{"message":[' + b"[]," * 5_500_000 + b"1]}")


async def most_lists(client: Client) -> None:
    """5: JSON with as many lists as are allowed."""
    await client.post("/api/queue/attacked/push", JSON, b'{"message":[' + b"[]," * 290_000 + b"1]}")


async def most_numbers(client: Client) -> None:
    """5: JSON with as many numbers as are allowed."""
    await client.post("/api/queue/attacked/push", JSON, b'{"message":[' + b"1," * 500_000 + b"1]}")


async def most_lines(client: Client) -> None:
    """5: the same as lines of a stream."""
    line = b"[" + b"[]," * 290_000 + b"1]\n"
    head = "Content-Type: application/x-ndjson\r\n"
    await client.post("/api/queue/attacked/push", head, line * 4)


MANY_KEYS = b'{"message":{' + b",".join(b'"k%d":1' % number for number in range(990_000)) + b"}}"

# Attack -> the number of clients.
ATTACKS: dict[Callable[[Client], Awaitable[None]], int] = {
    escapes: 4, push_escapes: 2, tiny_chunks: 4, tiny_lines: 2, pipelined: 4, pipelined_unread: 2, drip: 1010,
    drip_head: 100, drip_body: 100, silence: 100, unread: 20, unread_lines: 5, unfinished: 30, unfinished_push: 30,
    many_keys: 1, many_lists: 1, most_lists: 1, most_numbers: 1, most_lines: 1,
}  # fmt: skip


async def repeat(attack: Callable[[Client], Awaitable[None]], client: Client) -> None:
    while client.is_attacking:
        with contextlib.suppress(OSError):
            await asyncio.wait_for(attack(client), max(0.1, client.end - time.monotonic()))
        await asyncio.sleep(0.05)


async def main(port: int, seconds: float, names: list[str]) -> None:
    chosen = [attack for attack in ATTACKS if attack.__name__ in names] or list(ATTACKS)
    end = time.monotonic() + seconds
    clients = [repeat(attack, Client(port, end)) for attack in chosen for _ in range(ATTACKS[attack])]
    print("attacking", flush=True)
    await asyncio.gather(*clients, return_exceptions=True)


if __name__ == "__main__":
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
