"""What the tests of the client look at, and a proxy in front of an app that loses answers."""

import contextlib
import json
import socket
import threading
from typing import Any

from seequeue import Queue

from tests.servers import free_port


def facts(queue: Queue) -> tuple[int, int, int, int]:
    """Return the numbers of messages that are waiting, reserved, delayed and dead."""
    counts = queue.count()
    return counts.count, counts.reserved, counts.delayed, counts.dead


def dead(queue: Queue) -> list[tuple[bytes, int | None, str | None]]:
    """Return the dead letters of a queue, each with its deliveries and its reason."""
    with Queue(f"{queue.name}.dead", url=queue.url) as letters:
        return [(bytes(one), one.deliveries, one.reason) for one in letters.all(details=True)]


class HttpProxy:
    """Forwards whole requests to an app, one connection for each.

    front.lose("/push", times=2)          # the app handles the next two pushes, but their answers are lost
    front.lose("/all", after=100)         # the next answer is lost after its first 100 bytes
    front.answer("/push", 503, error="busy")   # the next push gets this answer instead, and does not reach the app
    front.refuse(), front.accept()        # connecting fails, works again
    front.requests                        # the request lines that came, in order
    front.headers, front.bodies           # their headers and bodies
    """

    def __init__(self, port: int) -> None:
        self.target, self.port = port, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self._plans: list[list[Any]] = []
        self._open: set[socket.socket] = set()
        self.accept()

    def lose(self, part: str, *, times: int = 1, after: int = 0) -> None:
        """Lose the answers to the next `times` requests whose path has this part, after so many bytes."""
        self._plans += [[part, after]] * times

    def answer(self, part: str, status: int, *, times: int = 1, retry_after: int | None = None, **fields: Any) -> None:
        """Answer the next `times` requests whose path has this part, in place of the app."""
        body = json.dumps({"success": False, "message": "A planned answer.", **fields}).encode()
        wait = f"Retry-After: {retry_after}\r\n" if retry_after is not None else ""
        head = f"HTTP/1.1 {status} Planned\r\nContent-Type: application/json\r\n{wait}"
        self._plans += [[part, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body]] * times

    def accept(self) -> None:
        self._is_refusing = False
        self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        threading.Thread(target=self._listen, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """Break all connections and refuse new ones."""
        self._is_refusing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        self.refuse()

    def _listen(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._open.add(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        reader = client.makefile("rb")
        with contextlib.suppress(OSError, ValueError), client:
            while line := reader.readline():
                head = [line]
                while (field := reader.readline()) not in (b"\r\n", b""):
                    if not field.lower().startswith(b"connection:"):
                        head.append(field)
                headers = {
                    name.lower(): value.strip() for name, _, value in (h.decode().partition(":") for h in head[1:])
                }
                body = reader.read(int(headers.get("content-length", 0)))
                self.requests.append(line.decode().split(" HTTP")[0])
                self.headers.append(headers)
                self.bodies.append(body)
                plan = next((one for one in self._plans if one[0] in self.requests[-1]), None)
                if plan:
                    self._plans.remove(plan)
                if plan and isinstance(plan[1], bytes):
                    client.sendall(plan[1])
                else:
                    limit = plan[1] if plan else 1 << 40
                    self._forward(client, b"".join(head) + b"Connection: close\r\n\r\n" + body, limit)
                    break
            client.shutdown(socket.SHUT_RDWR)  # the reader keeps it open otherwise

    def _forward(self, client: socket.socket, request: bytes, limit: int) -> None:
        """Send a request to the app, and pass on so many bytes of the answer."""
        with socket.create_connection(("127.0.0.1", self.target)) as app:
            self._open.add(app)
            if self._is_refusing:
                return
            app.sendall(request)
            while data := app.recv(1 << 16):
                client.sendall(data[:limit])
                limit -= min(limit, len(data))
