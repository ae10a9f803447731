"""gevent's gunicorn worker with per-connection timeouts and fair scheduling.

A client that sends faster than it is served yields to the others. When nearly all connections are in use, the one that
has waited longest for its client is closed to make room. After SIGTERM connections end within seconds.
"""

import heapq
import itertools
import math
import ssl
import time
from email.utils import formatdate
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, ClassVar

import gevent
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.workers.ggevent import GeventWorker

from server import clock
from server.connection import HANDLING, IDLE, Connection
from server.disconnect_poller import DisconnectPoller

if TYPE_CHECKING:  # gunicorn imports this module too early: gevent must first patch what this import would load
    from web.fairness import FairScheduler

STOP_TIMEOUT = 5.0  # seconds from SIGTERM until clients that have not finished reading or sending are cut off
CHECK_INTERVAL = 0.25  # seconds between two checks of the deadlines, and for a stop
CHECKS_PER_POLL = 4  # every fourth check also polls for disconnects
MAX_ACCEPT = 16  # connections accepted in one round of the event loop; an idle worker may take the next ones
SPARE_CONNECTIONS = 100  # kept free for new clients, but at most a tenth of all
MAX_CHECKED = 100  # headers of responses that are known to be well formed
MIN_EVICTION_WAIT = 1.0  # seconds that a connection must have waited for its client: a request may be on its way


@lru_cache(maxsize=1)
def _format_date(second: int) -> str:
    return formatdate(second, usegmt=True)


class _Response(wsgi.Response):  # type: ignore[misc]
    """gunicorn's response. It checks the same headers once instead of in each response."""

    checked: ClassVar[set[tuple[str, str]]] = set()

    def process_headers(self, headers: list[tuple[str, str]]) -> None:
        for header in headers:
            if header in self.checked:
                self.headers.append(header)
                continue
            super().process_headers([header])
            if self.headers[-1:] == [header] and header[0] != "Content-Length" and len(self.checked) < MAX_CHECKED:
                self.checked.add(header)


class Worker(GeventWorker):  # type: ignore[misc]
    """gevent's worker with per-connection timeouts and fair scheduling."""

    scheduler: "FairScheduler"  # the app's, set by the hook post_worker_init

    def run(self) -> None:
        self._cache_per_request_work()
        self.connections: set[Connection] = set()
        self.disconnects = DisconnectPoller()
        self.server_class = self._make_server
        gevent.spawn(self._enforce_timeouts)
        super().run()

    def _cache_per_request_work(self) -> None:
        """Do once the work that gunicorn repeats for each request, where it takes a tenth of the time."""
        # Reading a setting calls a function, dozens of times a request, unless it is an attribute.
        self.cfg.__dict__.update({name: setting.get() for name, setting in self.cfg.settings.items()})
        environ = wsgi.base_environ(self.cfg)
        wsgi.base_environ = lambda _: environ.copy()
        wsgi.Response = _Response
        util.http_date = lambda: _format_date(int(time.time()))

    def _make_server(self, listener: Any, *, spawn: Any, **options: Any) -> StreamServer:
        """Return the server that accepts connections. gunicorn's own accepts only one per round of the event loop."""
        ssl_options = {"ssl_context": options["ssl_context"]} if "ssl_context" in options else {}
        server = StreamServer(listener, handle=partial(self.handle, listener), spawn=spawn, **ssl_options)
        server.max_accept = MAX_ACCEPT
        return server

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection until it ends."""
        if isinstance(client, ssl.SSLSocket):
            super().handle(listener, client, addr)
            return
        connection = Connection(client, self.scheduler, self.disconnects)
        self._evict()
        self.connections.add(connection)
        try:
            super().handle(listener, connection, addr)
        finally:
            self.connections.discard(connection)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Handle one request. A client that pipelines requests yields to others before each of them."""
        if not isinstance(sock, Connection):
            return super().handle_request(listener_name, req, sock, addr)
        if sock.is_pipelined or not sock.has_read:
            sock.yield_now()
        sock.has_read = False
        sock.enter(HANDLING)
        try:
            return super().handle_request(listener_name, req, sock, addr)
        finally:
            sock.flush()
            sock.enter(IDLE)

    def _evict(self, at_most: int = 1) -> None:
        """When nearly all connections are in use, close those that have waited longest for their clients.

        It uses a heap, because each new connection can evict one of thousands.
        """
        spare = min(SPARE_CONNECTIONS, self.worker_connections // 10)
        wanted = min(at_most, len(self.connections) + 1 - (self.worker_connections - spare))
        if wanted <= 0:
            return
        latest = clock.now() - MIN_EVICTION_WAIT
        waiting = [
            (connection.phase.rank, connection.waiting_since, number, connection)
            for number, connection in enumerate(self.connections)
            if connection.waiting_since is not None and connection.waiting_since < latest
        ]
        heapq.heapify(waiting)
        while waiting and wanted:
            *_, connection = heapq.heappop(waiting)
            if not connection.has_request():
                connection.abort()
                wanted -= 1

    def _enforce_timeouts(self) -> None:
        """End waits whose deadline has passed, poll for disconnects, and keep connections free for new clients.

        After SIGTERM also end idle connections at once, and waits for clients after STOP_TIMEOUT.
        """
        stop_deadline = math.inf
        for number in itertools.count():
            gevent.sleep(CHECK_INTERVAL)
            now = clock.now()
            self._evict(SPARE_CONNECTIONS)
            if number % CHECKS_PER_POLL == 0:
                self.disconnects.poll()
            if not self.alive:
                stop_deadline = min(stop_deadline, now + STOP_TIMEOUT)
                self.disconnects.notify_all()
            for connection in list(self.connections):
                connection.end_if_timed_out(now)
                if not self.alive and connection.phase is IDLE:
                    connection.end_reading()
                elif now > stop_deadline and connection.waiting_since is not None:
                    connection.end_wait()
