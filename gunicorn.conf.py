"""How gunicorn serves app:app: by `make run`, `python3 app.py`, plain `gunicorn`, and in the container."""

from typing import Any

from server import capacity, hooks
from server.bad_requests import replace_error_answers
from server.listen import bind_addresses
from settings import from_environment

_settings = from_environment()  # read again at each reload
_capacity = capacity.plan(_settings.max_blocked_clients)

wsgi_app = "app:app"
proc_name = "seequeue"
bind = bind_addresses(_settings)
workers = _settings.web_concurrency
worker_class = "server.worker.Worker"  # gevent's: a waiting client costs a greenlet, not a thread
worker_connections = _capacity.connections
control_socket_disable = True
keepalive = 100  # seconds for an idle connection and the next head; server/connection.py has shorter timeouts for each
limit_request_line = 8190  # bytes, the maximum of gunicorn: a URL can contain a text to search for
sendfile = False  # static files have the same timeouts as all other responses
# web/access/proxy.py reads the headers of proxies in TRUSTED_PROXIES only. gunicorn would trust any local client.
forwarder_headers = ""
secure_scheme_headers = dict[str, str]()
forwarded_allow_ips = "*"  # as gunicorn believes no header, it need not parse the address of each request's client

# The order of time limits: longest wait (54) < graceful_timeout (65) < stop_grace_period in docker-compose.yaml (75).
# On SIGTERM waiting requests are answered within a second or two and idle connections closed; after five seconds slow
# readers and senders are cut off (server/worker.py). These limits bound everything else.
graceful_timeout = 65  # seconds


def on_starting(server: Any) -> None:
    hooks.start(server, _settings, _capacity)


def when_ready(server: Any) -> None:
    hooks.print_url(server, _settings)


def on_exit(server: Any) -> None:
    hooks.stop(server)


def pre_fork(server: Any, worker: Any) -> None:
    hooks.assign_counts_file(server, worker)


def post_fork(server: Any, worker: Any) -> None:
    hooks.handle_signals(worker)
    replace_error_answers(worker)


def post_worker_init(worker: Any) -> None:
    hooks.connect_app(worker, _capacity)
