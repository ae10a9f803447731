"""Exporting to a file: byte for byte and back, canceled, and of search results."""

from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.page.conftest import Tab, stored

# The first is of 1 MiB, and its line is longer than what the page reads of a file to find out what it contains.
MESSAGES = ["é\x01x" * (1 << 18), "plain", '{"a": 1.10}', "two\r\nlines\u2028", '"quoted"', b"\xff\x00\n", "12", "null"]


OPEN_FILE = """async () => (await navigator.storage.getDirectory()).getFileHandle("export", { create: true })"""


def read_file(tab: Tab) -> str:
    """Return the content of the file that the page wrote to."""
    return str(tab.page.evaluate(f"async () => (await (await ({OPEN_FILE})()).getFile()).text()"))


def test_an_exported_queue_can_be_pushed_again_byte_for_byte(tab: Tab, redis: Any, name: str, tmp_path: Path) -> None:
    redis.lpush("queue:" + name, *MESSAGES)
    before = stored(redis, name)
    expect(tab.by_id("count")).to_have_text("8")
    tab.page.evaluate("window.showSaveFilePicker = undefined")  # as in browsers that cannot write to a file
    with tab.page.expect_download() as download:
        tab.by_id("export").click()
    assert download.value.suggested_filename.startswith(f"{name}-20")
    expect(tab.by_id("toasts")).to_contain_text("8 messages saved in " + download.value.suggested_filename)
    redis.delete("queue:" + name)
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    tab.by_id("push-file").set_input_files(file)
    expect(tab.by_id("dropped-json")).to_be_checked()
    tab.page.get_by_role("button", name="One message per line").click()
    expect(tab.by_id("count")).to_have_text("8")
    assert stored(redis, name) == before
    expect(tab.by_id("curl-line")).to_contain_text("application/x-ndjson")


def test_a_canceled_export_leaves_the_file_and_search_results_can_be_exported(tab: Tab, redis: Any, name: str) -> None:
    redis.lpush("queue:" + name, "one", "two", "three")
    tab.shows("one", "two", "three")
    tab.page.evaluate(
        f"""async () => {{
        window.showSaveFilePicker = {OPEN_FILE};
        const file = await (await showSaveFilePicker()).createWritable();
        await file.write("an older export");
        await file.close();
    }}"""
    )
    tab.page.route("**/all", lambda route: None)
    tab.by_id("export").click()
    tab.by_id("export-cancel").click()
    expect(tab.by_id("toasts")).to_contain_text("Export stopped; no file was saved")
    expect(tab.by_id("export-progress")).to_be_hidden()
    expect(tab.by_id("export")).to_be_focused()
    assert read_file(tab) == "an older export"
    tab.page.unroute("**/all")
    tab.by_id("filter").fill("t")
    tab.press("Enter")
    expect(tab.page.locator(".hit")).to_have_count(2)
    tab.by_id("search-export").click()
    expect(tab.by_id("search").get_by_text(f"2 messages saved in {name}-found-20")).to_be_visible()
    assert read_file(tab) == '"two"\n"three"\n'
    tab.by_id("search-text").fill("x")
    expect(tab.by_id("search-export")).to_be_hidden()  # the results are of another text
