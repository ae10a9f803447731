"""The data that a visit to the page transfers."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from tests.page.conftest import Tab

MAX_REQUESTS = 12
MAX_BYTES = 62_000


def test_a_first_visit_is_small_and_the_next_queue_transfers_only_its_page(tabs: Callable[..., Tab], name: str) -> None:
    """The events of a stream, which come as long as the page is open, are not counted."""
    tab = tabs(locale="pt-BR")
    session = tab.page.context.new_cdp_session(tab.page)
    session.send("Network.enable")
    paths: dict[str, str] = {}  # by request
    sizes: dict[str, int] = {}
    cached: set[str] = set()

    def responded(event: dict[str, Any]) -> None:
        if event["response"].get("fromDiskCache"):
            cached.add(event["requestId"])
        paths[event["requestId"]] = urlsplit(event["response"]["url"]).path
        sizes[event["requestId"]] = event["response"]["encodedDataLength"]

    session.on("Network.responseReceived", responded)
    session.on("Network.requestServedFromCache", lambda event: cached.add(event["requestId"]))
    session.on("Network.loadingFinished", lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]}))

    tab.open()
    tab.page.wait_for_load_state("load")
    assert any(path.startswith("/static/js/home-") for path in paths.values())
    assert 4 <= len(paths) <= MAX_REQUESTS, paths
    assert 20_000 < sum(sizes.values()) <= MAX_BYTES, sizes

    paths.clear()
    tab.open(f"{name}-next")
    tab.page.wait_for_load_state("load")
    requested = [path for number, path in paths.items() if number not in cached]
    assert f"/q/{name}-next" in requested
    assert not [path for path in requested if path.startswith("/static/")]
