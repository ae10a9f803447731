"""The npm package as its users get it: what is in the tarball, its types, and both kinds of import."""

import json
import tarfile

import pytest
from packaging.version import Version

import web
from tests.npm import NODES, Project
from tests.servers import ROOT, App

MANIFEST = json.loads((ROOT / "client/js/package.json").read_text())
LOCK = (ROOT / "client/js/package-lock.json").read_text()


@pytest.fixture(params=NODES)
def node(request: pytest.FixtureRequest) -> str:
    """Each node of this machine: the one of the wheel, and the system's."""
    if not NODES[request.param]:
        pytest.skip("the system has no node")
    return NODES[request.param]


def test_the_package_has_the_version_of_the_server() -> None:
    assert Version(MANIFEST["version"]) == Version(web.__version__)
    assert json.loads(LOCK)["version"] == MANIFEST["version"]


def test_the_package_has_no_dependencies_and_its_tools_are_pinned() -> None:
    assert "dependencies" not in MANIFEST
    assert all(version[0].isdigit() for version in MANIFEST["devDependencies"].values())
    assert "resolved" not in LOCK  # else it would name a registry


@pytest.mark.slow
def test_the_tarball_has_the_pages_own_client_and_what_its_users_need(project: Project) -> None:
    with tarfile.open(project.tarball) as tarball:
        texts = {
            member.name.removeprefix("package/"): file.read().decode()
            for member in tarball
            if (file := tarball.extractfile(member))
        }
    own = ["client.js", *(f"client/{path.name}" for path in (ROOT / "static/js/client").iterdir())]
    assert {name: texts[f"dist/{name}"] for name in own} == {
        name: (ROOT / "static/js" / name).read_text() for name in own
    }
    assert {"package.json", "README.md", "LICENSE", "dist/index.d.ts", "dist/cjs/index.d.ts"} <= set(texts)
    assert [name for name in texts if not name.startswith("dist/")] == ["LICENSE", "package.json", "README.md"]
    assert not [name for name, text in texts.items() if "import.meta" in text]  # bundlers would look for that folder


@pytest.mark.slow
def test_a_program_in_typescript_compiles_and_runs_with_import_and_with_require(
    project: Project, site: App, node: str
) -> None:
    project.tsc()
    printed = json.loads(project.run(node, "module.mjs", SEEQUEUE_URL=site.url))
    assert printed == [2, "a", ['{"n":1}'], None, [], [], 0, [2, 1, 7], "bad_parameter"]
    printed = json.loads(project.run(node, "required.cjs", SEEQUEUE_URL=f"{site.url}/"))
    assert printed == [['{"n":1}'], '{"n":1}', "stale"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("", "http://localhost:5000/"),
        ("https://queue.example.com/tools", "https://queue.example.com/tools/"),
        ("queue:5000/tools/", "http://queue:5000/tools/"),
    ],
)
def test_the_address_comes_from_the_environment_and_keeps_its_path(project: Project, url: str, base: str) -> None:
    script = "import { QueueClient } from 'seequeue'; console.log(new QueueClient('a').url('pop').href)"
    printed = project.run(NODES["node"], "--input-type=module", "-e", script, SEEQUEUE_URL=url)
    assert printed == f"{base}api/queue/a/pop\n"


@pytest.mark.slow
def test_the_token_comes_from_the_environment(project: Project) -> None:
    script = """
        const { QueueClient } = require("seequeue");
        const fetch = async (url, { headers }) => Response.json({ success: true, token: headers.Authorization });
        new QueueClient("a", { fetch }).count().then(({ token }) => console.log(token));
    """
    assert project.run(NODES["node"], "-e", script, SEEQUEUE_TOKEN="secret") == "Bearer secret\n"


@pytest.mark.slow
def test_the_package_needs_nothing_of_node(project: Project) -> None:
    script = """
        const print = console.log;
        globalThis.process = undefined; // as in a browser
        const { QueueClient } = await import("seequeue");
        const answer = { success: false, error: "token_required", message: "No token." };
        const fetch = async (url) => Response.json(answer, { status: 401 });
        await new QueueClient("a", { fetch }).work(() => {}).catch(({ code }) => print(code));
    """
    assert project.run(NODES["node"], "--input-type=module", "-e", script) == "token_required\n"


@pytest.mark.slow
def test_work(project: Project, site: App, node: str) -> None:
    project.run(node, "--test-force-exit", "work.test.js", SEEQUEUE_URL=site.url)
