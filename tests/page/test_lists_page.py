"""The page of a list of another program: it is shown, and what would break that program is not offered."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.page.conftest import Tab
from tests.servers import App, Store, running


@pytest.fixture(scope="module", params=["0", "1"])
def lists_site(request: pytest.FixtureRequest, valkey: Store, folder: Path) -> Iterator[tuple[App, bool]]:
    """An app with an attached list, and whether a person may tidy it up."""
    settings = {"LISTS": "theirs@left", "LISTS_WRITABLE": request.param, "WEB_CONCURRENCY": "1"}
    with running(App(folder / f"lists{request.param}", REDIS_URL=valkey.url, **settings)) as app:
        yield app, request.param == "1"


def test_a_job_of_another_program_is_shown_searched_and_opened_by_its_summary(
    tabs: Callable[..., Tab], lists_site: tuple[App, bool], redis: Any
) -> None:
    job = {"class": "Charge", "args": [4, {"amount": 6.0}], "jid": "b4a577edbccf1d805744efa9"}
    redis.delete("theirs")
    redis.rpush("theirs", "first", json.dumps(job))
    tab = tabs(lists_site[0].url).open("theirs")
    tab.shows("first", 'Charge(4, {"amount": 6.0})')
    tab.page.get_by_text("Charge(4").click()
    expect(tab.by_id("message-summary")).to_have_text('Charge(4, {"amount": 6.0}) · id b4a577edbccf1d805744efa9')
    tab.page.keyboard.press("Escape")
    tab.by_id("filter").fill("charge(4, {")
    tab.shows('Charge(4, {"amount": 6.0})')
    tab.by_id("filter").press("Enter")
    expect(tab.by_id("search-hits").get_by_text("Charge(4")).to_be_visible()


def test_it_shows_what_waits_and_offers_neither_pop_nor_reserve(
    tabs: Callable[..., Tab], lists_site: tuple[App, bool], redis: Any
) -> None:
    app, is_writable = lists_site
    redis.delete("theirs")
    redis.rpush("theirs", "first", "second")
    tab = tabs(app.url).open("theirs")
    tab.shows("first", "second")
    for hidden in ("pop", "reserve", "pause"):
        expect(tab.by_id(hidden)).to_be_hidden()
    for shown in ("push-go", "clear", "move"):
        expect(tab.by_id(shown)).to_be_visible(visible=is_writable)
    redis.lpop("theirs")
    tab.shows("second")
    expect(tab.open("ours").by_id("pop")).to_be_visible()
