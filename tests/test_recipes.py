"""docs/recipes.md: each recipe is run by the test that is named after its section."""

import http.server
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.connections.connection import connect
from tests.console import at, blocks, check, need
from tests.npm import NODES, Project
from tests.recipes import Recipe, sections
from tests.servers import App, free_port, running, until

SECTIONS = sections("docs/recipes.md")
pytestmark = pytest.mark.slow


def link(url: str) -> str:
    """Return the message that the consumers of links take."""
    return json.dumps({"url": url})


def settings_of(section: str) -> dict[str, str]:
    """Return the settings that a section gives to `make run`, without Redis and the port."""
    (line,) = (block for block in blocks(SECTIONS[section], "sh") if "make run" in block)
    return {name: value for name, value in re.findall(r"(\w+)=(\S*)", line) if name not in ("REDIS_URL", "PORT")}


@pytest.fixture(scope="module")
def first(folder: Path) -> Iterator[App]:
    """The app that all recipes call, on an embedded server. Its default queue is the one of the first version."""
    with running(App(folder / "recipes", WEB_CONCURRENCY="1", **settings_of("from_the_first_version"))) as app:
        yield app


@pytest.fixture(scope="module")
def shop(first: App) -> Iterator[App]:
    """A second app on the same server, with another prefix."""
    settings = settings_of("an_existing_list")
    assert settings == settings_of("two_instances_on_one_redis")
    url = f"unix://{first.folder}/valkey.sock"
    with running(App(first.folder / "shop", WEB_CONCURRENCY="1", REDIS_URL=url, **settings)) as app:
        yield app


@pytest.fixture(scope="module")
def restarted(folder: Path) -> Iterator[App]:
    """An app that is killed and started again."""
    with running(App(folder / "restarted", WEB_CONCURRENCY="1")) as app:
        yield app


@pytest.fixture
def consumer(restarted: App, tmp_path: Path, request: pytest.FixtureRequest) -> Recipe:
    """A recipe whose consumer has to outlast the app."""
    need("curl")
    connect(f"unix://{restarted.folder}/valkey.sock").flushdb()
    return Recipe(restarted, tmp_path, SECTIONS[request.node.name.removeprefix("test_")])


@pytest.fixture
def recipe(first: App, tmp_path: Path, request: pytest.FixtureRequest) -> Recipe:
    need("curl")
    return Recipe(first, tmp_path, SECTIONS[request.node.name.removeprefix("test_")])


def test_each_recipe_has_a_test() -> None:
    tests = [name.removeprefix("test_") for name in globals() if name.startswith("test_")]
    assert tests == ["each_recipe_has_a_test", *SECTIONS]


def test_bash_with_curl_only(consumer: Recipe) -> None:
    for _ in range(2):  # the same keys: nothing is pushed twice
        consumer.run("sh")
    assert consumer.get("files/all")["messages"] == [f"https://example.com/page-{number}" for number in (1, 2, 3)]
    consumer.post("files/clear")
    with consumer.running(consumer.program("sh", 1)) as process:
        consumer.outlasts(process, "files", str, wrong='{"not": "a URL"}')


def test_flask_app_with_workers(consumer: Recipe) -> None:
    for number, name in enumerate(("app", "worker")):
        (consumer.folder / f"{name}.py").write_text(blocks(consumer.section, "python")[number])
    port = free_port()
    serve, work = at(blocks(consumer.section, "sh")[0], consumer.app).strip().replace("8000", str(port)).split(" & ")
    with (
        consumer.running([sys.executable, "-m", *serve.split()]),
        consumer.running([sys.executable, *work.split()[1:]]) as worker,
    ):
        checked = consumer.checked(f"http://127.0.0.1:{port}/links", in_form=True)
        assert checked == {"status": 200, "bytes": 5}
        consumer.outlasts(worker, "links", link, wrong="not JSON")


def test_fastapi_with_asyncqueue(consumer: Recipe) -> None:
    (consumer.folder / "app.py").write_text(blocks(consumer.section, "python")[0])
    port = free_port()
    with consumer.running([sys.executable, "-m", "uvicorn", "app:app", "--port", str(port)]) as app:
        consumer.outlasts(app, "links", link, wrong="not JSON")
        assert consumer.checked(f"http://127.0.0.1:{port}/links") == {"status": 200, "bytes": 5}
        app.send_signal(signal.SIGTERM)
        assert app.wait(60) == -signal.SIGTERM  # uvicorn ends so, once all has been finished


def test_node_service(consumer: Recipe, project: Project) -> None:
    (project.folder / "links.mjs").write_text(
        blocks(consumer.section, "js")[0].replace("https://example.com/", f"{consumer.app.url}/healthz")
    )
    with consumer.running([NODES["node"], str(project.folder / "links.mjs")]) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("200 ")
        consumer.outlasts(process, "links", link, wrong="not JSON")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_generated_clients(recipe: Recipe) -> None:
    command, _ = blocks(recipe.section, "sh")[0].splitlines()
    recipe.output([sys.executable, "-m", *at(command, recipe.app).replace("-", "_", 2).split()])
    assert list(recipe.folder.glob("*/*/api/push_and_pop/push.py"))


def test_delays(recipe: Recipe) -> None:
    check(recipe.section, recipe.app, recipe.folder)


def test_priorities(recipe: Recipe) -> None:
    check(recipe.section, recipe.app, recipe.folder)


def test_dead_letters(recipe: Recipe) -> None:
    check(recipe.section, recipe.app, recipe.folder)


def test_limits(recipe: Recipe) -> None:
    check(recipe.section, recipe.app, recipe.folder)


def test_cron(recipe: Recipe) -> None:
    (line,) = blocks(recipe.section, "crontab")
    command = at(re.sub(r"^(\S+ ){5}", "", line).replace(r"\%", "%"), recipe.app)
    for _ in range(2):
        subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.DEVNULL, timeout=60)
    assert len(recipe.get("reports/all")["messages"]) in (1, 2)  # 2 if it was midnight in between


def test_a_webhook(recipe: Recipe) -> None:
    received: list[bytes] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(500 if received[-1] == b"refused" else 204)
            self.end_headers()

    with http.server.HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for message in ("refused", '{"n":1}'):
            recipe.push("hooks", message)
        command = recipe.program("sh")
        command[-1] = command[-1].replace("https://example.com", f"http://127.0.0.1:{server.server_port}")
        with recipe.running(command):
            (delayed,) = until(lambda: recipe.get("hooks/delayed")["messages"])
            until(lambda: len(received) == 2)
        server.shutdown()
    assert (delayed["message"], received) == ("refused", [b"refused", b'{"n":1}'])


def test_webhooks_to_a_queue(recipe: Recipe) -> None:
    sent = re.findall(r"^event='(.*)'$", recipe.section, re.M)
    recipe.run("sh")
    assert [recipe.get(f"{name}/all")["messages"] for name in ("github", "stripe", "events")] == [[one] for one in sent]
    assert len(sent) == 3


def test_from_the_first_version(recipe: Recipe) -> None:
    need("redis-cli")
    check(recipe.section, recipe.app, recipe.folder)


def test_an_existing_list(recipe: Recipe, shop: App) -> None:
    need("redis-cli")
    section = recipe.section.replace("instance/", f"{recipe.app.folder}/")
    check(section, shop, recipe.folder)


def test_two_instances_on_one_redis(recipe: Recipe, shop: App) -> None:
    section = recipe.section.replace("localhost:5001", f"127.0.0.1:{shop.port}")
    check(section, recipe.app, recipe.folder)


def test_backup_and_restore(recipe: Recipe) -> None:
    check(recipe.section, recipe.app, recipe.folder)
