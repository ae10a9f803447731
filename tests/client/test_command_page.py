"""docs/command.md: its list of verbs is that of the command, and each example prints what it shows."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client.commands import put_on_path
from tests.console import check
from tests.servers import ROOT, App

PAGE = (ROOT / "docs/command.md").read_text(encoding="utf-8")


def test_the_list_of_verbs_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "client/python/reference.py")
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.reference(PAGE) == PAGE, "docs/command.md is stale: run make docs"


@pytest.mark.slow
def test_every_example_prints_what_it_shows(
    serve: Callable[..., App], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, folder = serve(WEB_CONCURRENCY="1"), tmp_path / "work"
    folder.mkdir()
    monkeypatch.setenv("PATH", put_on_path(tmp_path))
    monkeypatch.setenv("SEEQUEUE_URL", app.url)
    check(PAGE, app, folder)
