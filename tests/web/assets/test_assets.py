"""Static files: named by a digest, cached forever, compressed; and compressed pages."""

import gzip
import re
from pathlib import Path

import pytest
from flask import Flask, url_for
from flask.testing import FlaskClient

from tests.conftest import Api
from web.assets.assets import Assets

GZIP = {"Accept-Encoding": "gzip, deflate"}
FOREVER = "public, max-age=31536000, immutable"


def links(client: FlaskClient, page: str = "/") -> list[str]:
    found = re.findall(r'(?:src|href)="(/static/[^"]+)"', client.get(page).text)
    assert found
    return found


@pytest.fixture
def static_site(tmp_path: Path) -> FlaskClient:
    """An app with two modules and a style sheet of its own; /link/<name> answers the URL of a file."""
    (tmp_path / "css").mkdir()
    (tmp_path / "js").mkdir()
    (tmp_path / "css/look.css").write_text("p { color: red }\n" * 100)
    (tmp_path / "js/home.js").write_text('import { word } from "./word.js";\nconsole.log(word);\n')
    (tmp_path / "js/word.js").write_text('export const word = "first";\n')
    app = Flask(__name__, static_folder=None)
    assets = Assets(tmp_path)
    app.add_url_rule("/static/<path:filename>", "static", assets.serve)
    app.url_defaults(assets.add_digest)
    app.add_url_rule("/link/<path:name>", "link", lambda name: url_for("static", filename=name))
    return app.test_client()


@pytest.mark.parametrize("page", ["/", "/login", "/no/such"])
def test_every_file_of_a_page_is_cached_forever(api: Api, page: str) -> None:
    for link in links(api.with_settings(api_tokens=(b"a-long-token",)).http if page == "/login" else api.http, page):
        answer = api.http.get(link, headers=GZIP)
        assert (answer.status_code, answer.headers["Cache-Control"]) == (200, FOREVER), link
        assert re.search(r"-[0-9a-f]{12}\.(js|css|svg)$", link)


def test_a_file_is_compressed_for_clients_that_accept_it(named_api: Api) -> None:
    [link] = [link for link in links(named_api.http) if "/home-" in link and link.endswith(".js")]
    plain = named_api.http.get(link)
    packed = named_api.http.get(link, headers=GZIP)
    assert "Content-Encoding" not in plain.headers and packed.headers["Content-Encoding"] == "gzip"
    assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"
    assert gzip.decompress(packed.data) == plain.data and len(packed.data) < len(plain.data) / 2
    assert plain.mimetype == packed.mimetype and plain.mimetype in ("text/javascript", "application/javascript")
    assert plain.headers["ETag"] != packed.headers["ETag"]
    assert named_api.http.get(link, headers={"Accept-Encoding": "gzip;q=0"}).data == plain.data

    head = named_api.http.head(link, headers=GZIP)
    assert (head.data, head.headers["Content-Length"]) == (b"", str(len(packed.data)))
    known = named_api.http.get(link, headers={**GZIP, "If-None-Match": packed.headers["ETag"]})
    assert (known.status_code, known.headers["Cache-Control"], known.headers["Vary"]) == (
        304,
        FOREVER,
        "Accept-Encoding",
    )
    assert named_api.http.get(link, headers={"If-None-Match": packed.headers["ETag"]}).status_code == 200
    part = named_api.http.get(link, headers={**GZIP, "Range": "bytes=0-9"})
    assert (part.status_code, part.data) == (200, packed.data)


def test_under_its_plain_name_a_file_is_unchanged_and_revalidated(named_api: Api) -> None:
    answer = named_api.http.get("/static/js/home.js", headers=GZIP)
    assert b"import { " in answer.data and "Content-Encoding" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-cache"
    assert named_api.http.get("/static/js/home.js", headers={"Range": "bytes=0-9"}).data == answer.data[:10]


@pytest.mark.parametrize("changed", ["js/home.js", "js/word.js", "css/look.css"])
def test_a_changed_file_gets_another_name_at_once(static_site: FlaskClient, tmp_path: Path, changed: str) -> None:
    name = "css/look.css" if changed.endswith(".css") else "js/home.js"
    before = static_site.get(f"/link/{name}").text
    assert static_site.get(f"/link/{name}").text == before
    (tmp_path / changed).write_text(
        (tmp_path / changed).read_text().replace("first", "second") + "\n/* a */ a { b: c }\n"
    )
    after = static_site.get(f"/link/{name}").text
    assert after != before
    assert static_site.get(after).headers["Cache-Control"] == FOREVER
    # A page of another version of the app may still use the old name. It must not cache the new content under it.
    old = static_site.get(before)
    assert (old.status_code, old.headers["Cache-Control"], old.data) == (200, "no-cache", static_site.get(after).data)


def test_a_module_is_bundled_with_its_imports(static_site: FlaskClient) -> None:
    text = static_site.get(static_site.get("/link/js/home.js").text).text
    assert '"first"' in text and "import" not in text


@pytest.mark.parametrize(
    "path",
    [
        "js/none-0123456789ab.js",
        "../pages-0123456789ab.py",
        "%2e%2e/app-0123456789ab.py",
        "..%2fapp-0123456789ab.py",
        "js-0123456789ab.x",
        "%00-0123456789ab.js",
        "a" * 5000 + "-0123456789ab.js",
    ],
)
def test_an_unknown_file_is_the_404_page(named_api: Api, path: str) -> None:
    answer = named_api.http.get("/static/" + path)
    assert (answer.status_code, answer.mimetype) == (404, "text/html")


def test_other_spellings_of_a_name_make_no_further_copies(named_api: Api) -> None:
    assets = Assets(Path(named_api.app.root_path) / "static")
    with named_api.app.test_request_context():
        for name in ("css/base", "css/../css/base", "css//base"):
            assert assets.serve(f"{name}-0123456789ab.css").status_code == 200
    assert len(assets._built) == 1


def test_a_file_is_built_once(tmp_path: Path) -> None:
    (tmp_path / "look.css").write_text("a { b: c }")
    assets = Assets(tmp_path)
    assert assets._find("look.css") is assets._find("look.css") is not None


def test_a_page_is_compressed_and_an_answer_with_messages_is_not(named_api: Api) -> None:
    page = named_api.http.get("/q/jobs", headers=GZIP)
    assert (page.headers["Content-Encoding"], page.headers["Vary"]) == ("gzip", "Accept-Encoding")
    assert gzip.decompress(page.data) == named_api.http.get("/q/jobs").data
    assert len(page.data) == int(page.headers["Content-Length"]) < 15_000
    named_api.post("push", json={"message": "a" * 5000})
    assert "Content-Encoding" not in named_api.get("all", headers=GZIP).headers


def test_a_compressed_page_has_no_secret(named_api: Api) -> None:
    """Its length must not reveal the token, the session or a message."""
    token = "correct-horse-battery"
    api = named_api.with_settings(api_tokens=(token.encode(),))
    api.client.lpush(api.key, "a-secret-message")
    session = api.http.post("/login", data={"token": token}).headers["Set-Cookie"].partition(";")[0].partition("=")[2]
    page = api.http.get("/q/jobs").text
    assert 'id="logout"' in page
    for secret in (token, session, session.partition(".")[0], "a-secret-message"):
        assert secret not in page
