"""Starting on all kinds of machines: locales, paths, broken .venvs, HOST, ports in use, few open files."""

import contextlib
import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import venv
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from server import listen
from settings import BadSetting, Settings, read
from tests.embedded.helpers import failed_start
from tests.servers import ROOT, App, Proxy, Store, free_port, until

pytestmark = pytest.mark.slow  # they start the app

Serve = Callable[..., App]
Stores = Callable[..., Store]
PRODUCT = (
    "*.py",
    "requirements.txt",
    "Makefile",
    "broker",
    "web",
    "embedded",
    "server",
    "templates",
    "static",
    "translations",
)


@contextlib.contextmanager
def program(command: list[str], port: int, log: Path, cwd: Path = ROOT, **env: Any) -> Iterator[str]:
    """Run a command that starts the app, and yield its URL once it answers."""
    url = f"http://127.0.0.1:{port}"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={"PATH": os.environ["PATH"], "PORT": str(port), **env},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        until(lambda: answers(url, process, log), 120)
        yield url
    finally:
        process.terminate()
        process.wait()


def answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    assert process.poll() is None, log.read_text(errors="replace")
    try:
        urllib.request.urlopen(url + "/healthz", timeout=5)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def ask(url: str, data: str | None = None, **headers: str) -> Any:
    request = urllib.request.Request(url, None if data is None else data.encode(), headers)
    try:
        answer = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    body = answer.read().decode("utf-8")
    return json.loads(body) if "json" in answer.headers["Content-Type"] else body


@pytest.fixture(scope="session")
def packages() -> str:
    """The folder of this environment's packages, so that pip finds them and downloads nothing."""
    return str(Path(pytest.__file__).parent.parent)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the product without a .venv."""
    return copy_product(tmp_path / "checkout")


def copy_product(place: Path) -> Path:
    place.mkdir(parents=True)
    for pattern in PRODUCT:
        for path in ROOT.glob(pattern):
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, place / path.name)
    return place


# --- locales


@pytest.fixture(scope="session")
def latin1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables of a latin-1 locale."""
    place = tmp_path_factory.mktemp("locales")
    made = subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(place / "en_US.ISO-8859-1")], check=False
    )
    if made.returncode:
        assert not os.environ.get("CI"), "the package locales is not installed"
        pytest.skip("the package locales is not installed")
    return {"LOCPATH": str(place), "LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": "0"}


@pytest.fixture(params=["C", "latin1"])
def old_locale(request: pytest.FixtureRequest) -> dict[str, str]:
    """Environment variables of a locale whose encoding is not UTF-8."""
    if request.param == "latin1":
        found: dict[str, str] = request.getfixturevalue("latin1")
        return found
    return {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_the_locale_does_not_matter(old_locale: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    env: dict[str, Any] = {**old_locale, "DATA_DIR": str(tmp_path / "dáta ž")}
    with program([sys.executable, "app.py"], port, tmp_path / "log", **env) as url:
        assert ask(f"{url}/api/queue/push", "message=%C5%BElu%C5%A5")["message"] == "žluť"
        assert ask(f"{url}/api/queue/all")["messages"] == ["žluť"]
        page = ask(url, **{"Accept-Language": "pt-BR"})
        assert json.loads((ROOT / "translations/pt-BR.json").read_bytes())["noscript"] in page
        assert "Ã" not in page and "\ufffd" not in page
    assert "Traceback" not in (tmp_path / "log").read_text(errors="replace")
    assert f"http://127.0.0.1:{port}/" in (tmp_path / "log").read_text(errors="replace")


def test_a_failed_start_prints_one_line_in_every_locale(old_locale: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "dáta ž").write_text("in the way", encoding="utf-8")
    assert "cannot be written" in failed_start(tmp_path / "dáta ž", **old_locale)


def test_no_product_file_is_read_in_the_encoding_of_the_locale() -> None:
    rule = ["--isolated", "--preview", "--select", "PLW1514"]
    files = [
        path for pattern in ("*.py", "broker", "web", "embedded", "server", "examples") for path in ROOT.glob(pattern)
    ]
    subprocess.run([sys.executable, "-m", "ruff", "check", *rule, *files], check=True)


# --- paths


@pytest.mark.soak
def test_make_run_works_in_a_checkout_whose_path_is_300_bytes_long(tmp_path: Path, packages: str) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100) / ("f" * 100)
    copy_product(deep)
    port = free_port()
    for restarts in range(2):  # the second finds what the first left
        with program(["make", "run"], port, tmp_path / "log", cwd=deep, PYTHONPATH=packages) as url:
            assert ask(f"{url}/api/queue/push", f"message={restarts}")["count"] == restarts + 1
            line = failed_start(deep / "instance")
            [shared] = re.findall(r"REDIS_URL=(\S+?)\.?$", line)
            with program([sys.executable, "app.py"], free_port(), tmp_path / "log2", REDIS_URL=shared) as other:
                assert ask(f"{other}/api/queue/count")["count"] == restarts + 1
            length = subprocess.run(
                ["redis-cli", "-s", "instance/valkey.sock", "LLEN", "queue:default"],
                cwd=deep,
                capture_output=True,
                check=True,
            )
            assert length.stdout == b"%d\n" % (restarts + 1)
    assert os.listdir(deep / "instance")


# --- .venv


def make_broken_venv(place: Path, how: str) -> None:
    """Make a complete .venv, with the Makefile's stamps, and break it."""
    venv.create(place, with_pip=how == "upgraded", symlinks=True)
    for stamp in () if how == "interrupted" else ("made", "run", "develop"):
        (place / f"{stamp}.stamp").touch()
    [library] = (place / "lib").glob("python3*")
    if how == "removed":
        for python in (place / "bin").glob("python*"):
            python.unlink()
            python.symlink_to("/nowhere/python3")
    if how == "upgraded":
        library.rename(place / "lib" / "python3.0")


soak = pytest.mark.soak


@pytest.mark.parametrize(
    "how", [pytest.param("removed", marks=soak), pytest.param("upgraded", marks=soak), "interrupted"]
)
def test_make_replaces_a_broken_venv(checkout: Path, packages: str, how: str) -> None:
    make_broken_venv(checkout / ".venv", how)
    set_up = partial(subprocess.run, ["make", ".venv/run.stamp"], cwd=checkout, check=True)
    set_up(env={"PATH": os.environ["PATH"], "PYTHONPATH": packages})
    subprocess.run([checkout / ".venv/bin/python", "-Ic", "import pip"], check=True)
    stamp = (checkout / ".venv/made.stamp").stat().st_mtime_ns
    set_up(env={"PATH": os.environ["PATH"], "PYTHONPATH": packages})
    assert (checkout / ".venv/made.stamp").stat().st_mtime_ns == stamp  # a good one is kept


@soak
def test_an_existing_venv_is_kept(checkout: Path, packages: str) -> None:
    venv.create(checkout / ".venv", with_pip=True, symlinks=True)
    (checkout / ".venv/mine").touch()
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": packages}
    subprocess.run(["make", ".venv/run.stamp"], cwd=checkout, env=env, check=True)
    assert (checkout / ".venv/mine").exists()


@soak
def test_make_uses_no_script_with_the_path_of_another_checkout(checkout: Path, packages: str) -> None:
    shutil.copy(ROOT / "requirements-dev.txt", checkout)
    venv.create(checkout / ".venv", with_pip=True, symlinks=True)
    for tool in ("pytest", "ruff", "mypy", "gunicorn"):
        script = checkout / ".venv/bin" / tool
        script.write_text("#!/nowhere/.venv/bin/python\n", encoding="utf-8")
        script.chmod(0o755)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": packages}
    done = subprocess.run(["make", "quick", "ARGS=--version"], cwd=checkout, env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"pytest" in done.stdout + done.stderr


# --- who can connect


OPEN_TO_ALL = ["0.0.0.0", "::", "0"]


@pytest.mark.parametrize("host", OPEN_TO_ALL)
def test_without_a_token_it_does_not_listen_beyond_this_machine(folder: Path, host: str) -> None:
    line = failed_start(folder / "refused", HOST=host)
    assert "API_TOKEN" in line and "ALLOW_UNAUTHENTICATED=1" in line and "HOST" in line
    assert not (folder / "refused").exists()


def test_a_host_set_by_conda_or_tcsh_is_explained(folder: Path) -> None:
    line = failed_start(folder / "refused", HOST="x86_64-conda-linux-gnu")
    assert "x86_64-conda-linux-gnu" in line and "conda" in line and "HOST=localhost" in line


def test_an_address_of_another_machine_is_refused(folder: Path) -> None:
    assert "192.0.2.1" in failed_start(folder / "refused", HOST="192.0.2.1")


def test_a_host_name_that_others_can_reach_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(0, 0, 0, "", ("127.0.1.1" if host == "inside" else "192.0.2.7", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    listen._check_loopback("inside", 1)
    with pytest.raises(BadSetting, match="outside"):
        listen._check_loopback("outside", 1)


@pytest.mark.parametrize("bind", ["--bind 0.0.0.0:{port}", "--bind :{port}", "-b [::]:{port}"])
def test_an_address_of_gunicorns_own_options_is_held_to_the_same_rule(folder: Path, bind: str) -> None:
    assert "ALLOW_UNAUTHENTICATED=1" in failed_start(
        folder / "refused", GUNICORN_CMD_ARGS=bind.format(port=free_port())
    )


def test_a_socket_from_systemd_is_held_to_the_same_rule(folder: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        code = "import os, sys; os.dup2(int(sys.argv[1]), 3); "
        code += "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); "
        code += "os.execv(sys.executable, [sys.executable, 'app.py'])"
        os.set_inheritable(listener.fileno(), True)
        env = {"PATH": os.environ["PATH"], "DATA_DIR": str(folder / "refused")}
        command = [sys.executable, "-c", code, str(listener.fileno())]
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, close_fds=False, timeout=60, check=False)
    assert done.returncode == 2 and b"ALLOW_UNAUTHENTICATED=1" in done.stderr


@pytest.mark.parametrize("allowed", [{"ALLOW_UNAUTHENTICATED": "1"}, {"API_TOKEN": "long enough".replace(" ", "-")}])
@pytest.mark.parametrize("host", ["0.0.0.0", pytest.param("::", marks=soak)])
def test_it_listens_on_all_addresses_when_that_is_allowed(
    serve: Serve, valkey: Store, host: str, allowed: dict[str, str]
) -> None:
    app = serve(REDIS_URL=valkey.url, HOST=host, **allowed)
    assert ask(f"{app.url}/healthz")["success"]


@pytest.mark.parametrize(
    "host", ["127.0.0.2", "localhost", *(pytest.param(each, marks=soak) for each in ("LOCALHOST", "::1"))]
)
def test_a_loopback_address_needs_no_permission(folder: Path, valkey: Store, tmp_path: Path, host: str) -> None:
    port, url = free_port(), f"http://[{host}]" if ":" in host else f"http://{host}"
    log = tmp_path / "log"
    env = {"PATH": os.environ["PATH"], "PORT": str(port), "HOST": host, "REDIS_URL": valkey.url}
    with open(log, "wb") as output:
        process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=env, stdout=output, stderr=output)
    try:
        until(lambda: answers(f"{url}:{port}", process, log))
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("value", ["yes", "2", "-1", "true"])
def test_allow_unauthenticated_is_1_or_0(value: str) -> None:
    with pytest.raises(BadSetting, match="ALLOW_UNAUTHENTICATED"):
        read({"ALLOW_UNAUTHENTICATED": value})


def test_compose_is_open_to_its_own_machine_only() -> None:
    """The container listens on all addresses without a token, so its port must be published on loopback only."""
    compose = (ROOT / "docker-compose.yaml").read_text(encoding="utf-8")
    assert (
        "ALLOW_UNAUTHENTICATED" in compose
        and "ALLOW_UNAUTHENTICATED" not in re.findall("^ENV.*", (ROOT / "Dockerfile").read_text(), re.M)[-1]
    )
    published = re.findall(r'^ +- "([^"]+):5000"', compose, re.MULTILINE)
    assert published and all(address.startswith("127.0.0.1:") for address in published)


# --- loopback addresses and ports in use


def test_it_listens_on_both_loopback_addresses(serve: Serve, valkey: Store) -> None:
    app = serve(REDIS_URL=valkey.url)
    for host in ("127.0.0.1", "[::1]", "localhost"):
        assert ask(f"http://{host}:{app.port}/healthz")["success"]
    lines = f"The queue is on http://127.0.0.1:{app.port}/\nIts messages are in {valkey.url}\n"
    assert lines in app.log.read_text()


def test_with_port_0_it_listens_on_a_free_port_and_keeps_it_when_it_reloads(valkey: Store, tmp_path: Path) -> None:
    assert listen.bind_addresses(Settings(port=0)) == ["127.0.0.1:0"]  # with two it would get two ports
    env = {"PATH": os.environ["PATH"], "PORT": "0", "REDIS_URL": valkey.url, "WEB_CONCURENCY": "3"}
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        [url] = until(
            lambda: re.findall(r"The queue is on (http://127\.0\.0\.1:\d+)/\n", (tmp_path / "log").read_text())
        )
        assert ask(f"{url}/healthz")["success"]
        assert "WEB_CONCURENCY is not a setting. Is WEB_CONCURRENCY meant?" in (tmp_path / "log").read_text()
        process.send_signal(signal.SIGHUP)
        until(lambda: (tmp_path / "log").read_text().count("Booting worker") == 4)
        assert ask(f"{url}/healthz")["success"]
    finally:
        process.terminate()
        process.wait()


def test_without_ipv6_it_listens_on_ipv4_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ipv6(*_: Any, **__: Any) -> socket.socket:
        raise OSError(97, "Address family not supported by protocol")

    assert listen.bind_addresses(Settings(port=5000)) == ["127.0.0.1:5000", "[::1]:5000"]
    monkeypatch.setattr(socket, "create_server", no_ipv6)
    assert listen.bind_addresses(Settings(port=5000)) == ["127.0.0.1:5000"]


@pytest.mark.parametrize("taken", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_a_port_in_use_is_reported_in_one_line(folder: Path, taken: str) -> None:
    family = socket.AF_INET6 if ":" in taken else socket.AF_INET
    with socket.create_server((taken, 0), family=family) as other:
        port = other.getsockname()[1]
        line = failed_start(folder / "refused", PORT=str(port))
        assert f"port {port}" in line and "in use" in line and "another program" in line and "set PORT" in line
    assert not (folder / "refused").exists()


def test_a_program_that_lets_others_listen_beside_it_is_found_by_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS a loopback address can be bound while another program listens on all addresses."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setattr(socket, "create_server", lambda *_, **__: socket.socket())
        with pytest.raises(BadSetting, match="in use"):
            listen._check_free("127.0.0.1", port, reuse_port=False)
        listen._check_free("127.0.0.1", port, reuse_port=True)


def test_with_reuse_port_a_second_instance_may_listen_beside_the_first(
    serve: Serve, valkey: Store, tmp_path: Path
) -> None:
    first = serve(REDIS_URL=valkey.url, GUNICORN_CMD_ARGS="--reuse-port")
    env: dict[str, Any] = {"REDIS_URL": valkey.url, "GUNICORN_CMD_ARGS": "--reuse-port"}
    with program([sys.executable, "app.py"], first.port, tmp_path / "log", **env) as url:
        until(lambda: "Booting worker" in (tmp_path / "log").read_text())
        first.end()
        until(lambda: ask(f"{url}/healthz")["success"])


# --- the limit of open files


@pytest.mark.parametrize("each_its_own_queue", [False, True])
def test_with_few_open_files_waiting_is_refused_and_other_requests_are_served(
    tmp_path: Path, each_its_own_queue: bool
) -> None:
    port, number = free_port(), 600
    command = ["bash", "-c", "ulimit -n 128; exec " + sys.executable + " app.py"]

    def wait(index: int) -> int:
        name = f"q{index}" if each_its_own_queue else "q"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", f"/api/queue/{name}/pop?wait=30")
        status = connection.getresponse().status
        connection.close()
        return status

    with (
        ThreadPoolExecutor(number) as pool,
        program(command, port, tmp_path / "log", DATA_DIR=str(tmp_path / "data")) as url,
    ):
        waiting = [pool.submit(wait, index) for index in range(number)]
        until(lambda: sum(one.done() for one in waiting) > number - 60, 60)
        for _ in range(50):
            assert ask(f"{url}/api/queue/other/push", "message=m")["success"]
            assert ask(f"{url}/api/queue/other/pop", "")["message"] == "m"
        kept = sum(not one.done() for one in waiting)
        statuses = {one.result() for one in waiting if one.done()}
        assert kept > 0 and statuses <= {429, 503}
        log = (tmp_path / "log").read_text()
        assert log.count("ulimit -n: 128") == 1 and "instead of 5000" in log
        assert "Traceback" not in log and "Too many open files" not in log


def test_too_few_open_files_are_reported_in_one_line(folder: Path) -> None:
    command = f"ulimit -n 60; exec {sys.executable} app.py"
    env = {"PATH": os.environ["PATH"], "PORT": str(free_port()), "DATA_DIR": str(folder / "refused")}
    done = subprocess.run(["bash", "-c", command], env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    [line] = [line for line in done.stderr.splitlines() if "[INFO]" not in line]
    assert done.returncode == 2 and "open files is 60" in line and "ulimit -n" in line


def test_a_limit_that_is_high_enough_is_not_mentioned(site: App) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] > 20_000:
        assert "ulimit" not in site.log.read_text()


# --- a Redis that evicts messages


@pytest.mark.parametrize(
    ("kind", "policy"),
    [("valkey", "allkeys-lru"), ("redis", "volatile-ttl"), pytest.param("valkey", "volatile-ttl", marks=soak)],
)
def test_a_redis_that_evicts_messages_causes_a_warning(own_store: Stores, serve: Serve, kind: str, policy: str) -> None:
    store = own_store(kind, "--maxmemory", "100mb", "--maxmemory-policy", policy)
    app = serve(REDIS_URL=store.url)
    health = ask(f"{app.url}/healthz")
    assert health["success"] and policy in health["warning"] and "noeviction" in health["warning"]
    until(lambda: health["warning"] in app.log.read_text())
    ask(f"{app.url}/api/queue/push", "message=m")
    assert app.log.read_text().count(policy) == 1
    store.client().config_set("maxmemory-policy", "noeviction")
    assert "warning" not in ask(f"{app.url}/healthz")


def test_a_redis_that_is_away_at_the_start_is_named_and_causes_the_warning_later(
    own_store: Stores, serve: Serve
) -> None:
    store = own_store("valkey", "--maxmemory-policy", "allkeys-random")
    proxy = Proxy(store.port)
    proxy.refuse()
    app = serve(REDIS_URL=proxy.url)
    until(lambda: ask(f"{app.url}/healthz")["error"] == "redis_unavailable")
    reason = f"Cannot reach Redis at 127.0.0.1:{proxy.port} (connection refused). Trying again"
    until(lambda: reason in app.log.read_text())
    assert ask(f"{app.url}/livez") == {"success": True}
    proxy.accept()
    until(lambda: "allkeys-random" in app.log.read_text())
    proxy.end()


def test_a_redis_that_evicts_nothing_causes_no_warning(site: App) -> None:
    assert set(ask(f"{site.url}/healthz")) == {"success", "version"}


def test_a_redis_user_without_permission_for_info_is_accepted(own_store: Stores, serve: Serve) -> None:
    store = own_store("valkey", "--maxmemory-policy", "allkeys-lru")
    store.client().execute_command("ACL", "SETUSER", "limited", "on", ">secret", "~*", "&*", "+@all", "-info")
    app = serve(REDIS_URL=store.url.replace("redis://", "redis://limited:secret@"))
    answer = ask(f"{app.url}/healthz")
    assert answer["success"] and "INFO" in answer["warning"]
