"""What dialogs share, how they open and close, and the dialog that switches to another queue."""

from collections.abc import Callable

from playwright.sync_api import expect

from tests.page.conftest import Tab


def test_open_a_queue_by_name_and_come_back(tab: Tab, seed: Callable[..., None], name: str) -> None:
    seed("here")
    tab.shows("here")
    tab.by_id("switch").focus()
    tab.press("Enter")
    tab.page.keyboard.type(name + ":new")
    tab.press("Enter")
    expect(tab.page).to_have_url(f"{tab.url}/q/{name}:new")
    expect(tab.page.locator("h1")).to_have_text(name + ":new")
    expect(tab.by_id("empty")).to_be_visible()
    tab.page.go_back()
    expect(tab.page).to_have_url(f"{tab.url}/q/{name}")
    tab.shows("here")
    tab.by_id("switch").click()
    tab.page.keyboard.type(name)
    link = tab.page.locator(f"#queues-list a[href$='/q/{name}']")
    expect(link).to_have_attribute("aria-current", "page")
    expect(link).to_have_accessible_name(f"{name}, 1 waiting")


def test_an_invalid_field_says_why_in_the_pages_language(tab: Tab, seed: Callable[..., None], name: str) -> None:
    seed("hello")
    tab.by_id("language").select_option("es")
    tab.shows("hello")
    tab.by_id("move").click()
    messages = "['moving-to', 'moving-max'].map((id) => document.getElementById(id).validationMessage)"
    bad_name = "El nombre de la cola tiene de 1 a 128 de los caracteres A-Z a-z 0-9 . _ - : y ningún otro."
    for typed, number, expected in [
        ("", "", ["Rellene este campo.", ""]),
        ("no name", "", [bad_name, ""]),
        ("x" * 129, "", [bad_name, ""]),
        (name, "0", ["", "El número está fuera de los límites."]),
    ]:
        tab.by_id("moving-to").fill(typed)
        tab.by_id("moving-max").fill(number)
        tab.press("Enter")
        assert tab.page.evaluate(messages) == expected
    tab.by_id("moving-to").fill(f"{name}-2")
    tab.by_id("moving-max").evaluate("field => { field.value = '1' }")  # as the page fills it
    tab.by_id("moving").get_by_role("button", name="Mover").click()
    expect(tab.by_id("count")).to_have_text("0")
    assert tab.focused() == "viewport"  # the button that opened the dialog is disabled


def test_a_selection_that_ends_outside_a_dialog_leaves_it_open(tab: Tab, seed: Callable[..., None]) -> None:
    seed("hello")
    tab.rows().first.click()
    tab.by_id("message").evaluate("dialog => Promise.all(dialog.getAnimations().map((one) => one.finished))")
    box = tab.by_id("message").bounding_box()
    assert box
    tab.page.mouse.move(box["x"] + 100, 300)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] - 100, 300)
    tab.page.mouse.up()
    assert tab.by_id("message").evaluate("dialog => dialog.open")
    tab.page.mouse.click(box["x"] + 3, 600)
    assert tab.by_id("message").evaluate("dialog => dialog.open")
    tab.page.mouse.click(box["x"] - 100, 300)
    expect(tab.by_id("message")).to_be_hidden()
