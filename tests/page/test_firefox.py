"""The page in Firefox: accessibility, and a few actions. Everything else is tested in Chromium."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest

from tests.page.firefox import Firefox, firefox
from tests.servers import App, Store

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()


@pytest.fixture
def window(tmp_path: Path) -> Iterator[Firefox]:
    """The system's Firefox. If it is missing, these tests are skipped; in CI they fail."""
    path = shutil.which("firefox-esr") or shutil.which("firefox")
    if not path:
        assert not os.environ.get("CI"), "firefox is not installed"
        pytest.skip("firefox is not installed")
    with firefox(path, tmp_path) as started:
        yield started
        assert started.faults == []


def faults(window: Firefox) -> list[str]:
    """Return the findings of axe that are moderate or worse."""
    if not window.run("'axe' in window"):
        window.run(f"void ({json_function(AXE)})()")
    found: list[dict[str, Any]] = window.run("axe.run(document).then((found) => found.violations)")
    return [
        f"{one['id']}: {[node['html'][:120] for node in one['nodes']]}" for one in found if one["impact"] != "minor"
    ]


def json_function(script: str) -> str:
    return f"() => {{ {script} }}"


def test_axe_finds_no_fault_and_a_message_is_pushed_popped_and_put_back(
    window: Firefox, site: App, valkey: Store, name: str
) -> None:
    redis = valkey.client()
    window.open(f"{site.url}/q/{name}")
    window.wait("document.getElementById('live').dataset.connection === 'live'")
    window.wait("document.getElementById('empty').checkVisibility()")
    assert faults(window) == [], "empty"
    window.click("#push-text")
    window.type(*"hello")
    window.click("#push-go")
    window.wait("document.querySelector('.row .preview')?.textContent === 'hello'")
    assert redis.lrange(f"queue:{name}", 0, -1) == [b"hello"]
    redis.lpush(f"queue:{name}", '{"a": 1}', b"\xff")  # the page follows other clients
    window.wait("document.querySelectorAll('.row').length === 3")
    assert faults(window) == [], "messages"
    window.click("#pop")
    window.wait("document.querySelector('#taken .preview')?.textContent === 'hello'")
    window.wait("document.getElementById('count').textContent === '2'")
    window.click("#reserve")
    window.wait("document.querySelectorAll('#taken .message-card').length === 2")
    assert faults(window) == [], "in hand"
    window.click(".row .open")
    window.wait("document.getElementById('message').open")
    assert window.text("#message-body")[0].startswith("00000000  ff ")
    assert faults(window) == [], "message"
    window.type("Escape")
    window.wait("!document.getElementById('message').open")
    window.click("#taken .message-card:last-child .back")
    window.wait("document.querySelectorAll('#taken .message-card').length === 1")
    assert redis.lrange(f"queue:{name}", 0, -1) == [b"\xff", b"hello"]
    window.click("#clear")
    window.type(*name, "Enter")
    window.wait("document.getElementById('undo').checkVisibility()")
    assert faults(window) == [], "cleared"
    window.open(f"{site.url}/q/{name}.dead", width=390, height=844)
    window.wait("document.getElementById('live').dataset.connection === 'live'")
    assert faults(window) == [], "dead letters, narrow"
