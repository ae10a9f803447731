"""Pushing files: line by line, whole, several, dropped on the page, canceled, and failing half way."""

from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.page.conftest import Tab, stored


def test_whole_files_are_pushed_in_order_and_a_failure_stays_on_screen(
    tab: Tab, redis: Any, name: str, tmp_path: Path
) -> None:
    for file in ("a.bin", "b.bin"):
        (tmp_path / file).write_text(file)
    refused: list[Any] = []

    def refuse_the_first(route: Any) -> None:
        if refused:
            route.continue_()
        else:
            refused.append(route)
            route.abort()

    tab.page.route("**/push", refuse_the_first)
    tab.by_id("push-file").set_input_files([tmp_path / "a.bin", tmp_path / "b.bin"])
    for file in ("a.bin", "b.bin"):
        expect(tab.by_id("dropped-title")).to_contain_text(f"Push {file} ")
        tab.page.get_by_role("button", name="One message", exact=True).click()
    tab.shows("b.bin")
    expect(tab.by_id("toasts").get_by_role("alert")).to_contain_text("a.bin: ")


def test_push_each_line_of_a_file_as_a_message(tab: Tab, redis: Any, name: str, tmp_path: Path) -> None:
    lines = [f"{i} {'é' * (i % 40)}" for i in range(60_000)]  # more than one slice
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    tab.by_id("push-file").set_input_files(tmp_path / "lines.txt")
    tab.page.get_by_role("button", name="One message per line").click()
    expect(tab.by_id("count")).to_have_text("60,000")
    assert stored(redis, name) == [line.encode() for line in lines]
    expect(tab.by_id("toasts")).to_contain_text("60,000 messages pushed")


def test_push_a_file_as_one_message_byte_for_byte(tab: Tab, redis: Any, name: str, tmp_path: Path) -> None:
    data = bytes(range(256)) * 10
    (tmp_path / "picture.bin").write_bytes(data)
    tab.by_id("push-file").set_input_files(tmp_path / "picture.bin")
    tab.page.get_by_role("button", name="One message", exact=True).click()
    expect(tab.by_id("count")).to_have_text("1")
    assert stored(redis, name) == [data]


def test_a_canceled_push_reports_how_many_messages_were_pushed(tab: Tab, redis: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes(b"0123456789012345678901234567890\n" * 400_000)
    slices: list[Any] = []

    def cancel(route: Any) -> None:  # before the third slice
        if len(slices) == 2:
            tab.by_id("push-cancel").evaluate("button => button.click()")
        slices.append(route)
        route.continue_()

    tab.page.route("**/push?each=line", cancel)
    tab.by_id("push-file").set_input_files(tmp_path / "lines.txt")
    tab.page.get_by_role("button", name="One message per line").click()
    expect(tab.by_id("toasts")).to_contain_text("Stopped: 98,304 messages from lines.txt were pushed")
    assert redis.llen("queue:" + name) == 98_304
    expect(tab.by_id("push-progress")).to_be_hidden()


def test_several_files_are_offered_one_after_another(tab: Tab, redis: Any, name: str, tmp_path: Path) -> None:
    for file in ("one", "two", "three", "four"):
        (tmp_path / file).write_text(f"{file} a\n{file} b")
    tab.by_id("push-file").set_input_files([tmp_path / file for file in ("one", "two", "three", "four")])
    for file in ("one", "two"):
        expect(tab.by_id("dropped-title")).to_contain_text(f"Push {file} ")
        tab.page.get_by_role("button", name="One message per line").click()
    expect(tab.by_id("dropped-title")).to_contain_text("Push three ")
    tab.by_id("dropped").get_by_role("button", name="Cancel").click()
    expect(tab.by_id("dropped")).to_be_hidden()
    tab.shows("one a", "one b", "two a", "two b")


def test_a_file_with_invalid_text_stops_there_and_says_why(tab: Tab, redis: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / "mixed.txt").write_bytes(b"good\nalso good\n\xff\xfe bad\nnever\n")
    tab.by_id("push-file").set_input_files(tmp_path / "mixed.txt")
    tab.page.get_by_role("button", name="One message per line").click()
    expect(tab.page.get_by_role("alert")).to_contain_text("The text is not valid UTF-8.")
    expect(tab.by_id("toasts")).to_contain_text("Stopped: 2 messages from mixed.txt were pushed")
    assert stored(redis, name) == [b"good", b"also good"]


def test_a_dropped_file_is_offered(tab: Tab) -> None:
    transfer = tab.page.evaluate_handle(
        "() => { const t = new DataTransfer(); t.items.add(new File(['a\\nb'], 'dropped.txt')); return t; }"
    )
    tab.page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
    expect(tab.by_id("drop")).to_be_visible()
    tab.page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(tab.by_id("drop")).to_be_hidden()
    expect(tab.by_id("dropped-title")).to_have_text("Push dropped.txt (3 B)")
    tab.page.get_by_role("button", name="One message per line").click()
    tab.shows("a", "b")


REFUSED = [
    (b"", "The file is empty."),
    ("text".encode("utf-16"), "The file is UTF-16; save it as UTF-8."),
    (b"x" * (5 << 20), "The message is too large (limit: 1 MiB)."),  # one long line
]


def test_a_file_that_cannot_be_pushed_says_why(tab: Tab, tmp_path: Path) -> None:
    for number, (content, sentence) in enumerate(REFUSED):
        (tmp_path / f"{number}.txt").write_bytes(content)
        tab.by_id("push-file").set_input_files(tmp_path / f"{number}.txt")
        expect(tab.page.get_by_role("alert").last).to_contain_text(f"{number}.txt: {sentence}")
        expect(tab.by_id("dropped")).to_be_hidden()


def test_a_dropped_folder_is_reported_as_one(tab: Tab) -> None:
    tab.page.evaluate(
        """() => {
        const folder = new File([""], "folder");
        folder.slice = () => ({ arrayBuffer: () => Promise.reject(new DOMException("", "NotFoundError")) });
        const event = new Event("drop", { bubbles: true });
        event.dataTransfer = { types: ["Files"], files: [folder] };
        document.body.dispatchEvent(event);
    }"""
    )
    expect(tab.page.get_by_role("alert")).to_contain_text("folder: This is a folder or an unreadable file.")


def test_lines_of_text_are_not_mistaken_for_json(tab: Tab, redis: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text('"quoted"\nplain\n')
    tab.by_id("push-file").set_input_files(tmp_path / "lines.txt")
    expect(tab.by_id("dropped-json")).not_to_be_checked()
    tab.page.get_by_role("button", name="One message per line").click()
    tab.shows('"quoted"', "plain")
