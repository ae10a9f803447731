"""Accessibility, theme, language and sign-in: what every visitor needs before the first message."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.page.conftest import READ_TOKEN, TOKEN, Tab
from tests.servers import App, Store, until

axe = Axe()


def faults(tab: Tab) -> list[str]:
    """Return the findings of axe that are moderate or worse."""
    found = axe.run(tab.page).response["violations"]
    return [
        f"{one['id']}: {[node['html'][:120] for node in one['nodes']]} {one['nodes'][0]['failureSummary']}"
        for one in found
        if one["impact"] in ("serious", "critical", "moderate")
    ]


@pytest.mark.parametrize(("scheme", "width"), [pytest.param("light", 1280, marks=pytest.mark.soak), ("dark", 390)])
def test_axe_finds_no_fault_in_any_state(tabs: Callable[..., Tab], redis: Any, scheme: str, width: int) -> None:
    tab = tabs(color_scheme=scheme, width=width, height=900, reduced_motion="reduce").open()
    queue = "queue:" + tab.name
    expect(tab.by_id("empty")).to_be_visible()
    assert faults(tab) == [], "empty"
    redis.lpush(queue, "plain", '{"a": 1}', b"\xff\x00", *(f"m{i}" for i in range(50)))
    expect(tab.by_id("count")).to_have_text("53")
    expect(tab.rows().first).to_have_text("plain")
    assert faults(tab) == [], "messages"
    tab.by_id("pop").click()
    expect(tab.in_hand()).to_have_count(1)
    tab.by_id("reserve").click()
    expect(tab.in_hand()).to_have_count(2)
    tab.page.get_by_text("Options").click()
    assert faults(tab) == [], "in hand"
    tab.by_id("filter").fill("m")
    expect(tab.by_id("found")).to_be_visible()
    assert faults(tab) == [], "filtered"
    tab.by_id("filter").fill("")
    tab.page.locator(".row .open").first.click()
    expect(tab.by_id("message")).to_be_visible()
    assert faults(tab) == [], "message"
    tab.by_id("message-edit").click()
    assert faults(tab) == [], "copying"
    tab.press("Escape", "Escape")
    for button, dialog in [("switch", "queues"), ("move", "moving"), ("clear", "clearing")]:
        tab.by_id(button).click()
        expect(tab.by_id(dialog)).to_be_visible()
        assert faults(tab) == [], dialog
        tab.press("Escape")
    tab.by_id("pause").click()
    expect(tab.by_id("paused")).to_be_visible()
    assert faults(tab) == [], "paused"
    tab.by_id("resume").click()
    tab.by_id("push-text").fill("later")
    tab.by_id("push-delay").fill("600")
    tab.by_id("push-go").click()
    for button in ("delayed-open", "reserved-open"):
        tab.by_id(button).click()
        expect(tab.in_flight()).to_have_count(1)
        assert faults(tab) == [], button
        if button == "delayed-open":
            tab.press("Escape")
    tab.in_flight().locator(".later").click()
    assert faults(tab) == [], "releasing"
    tab.press("Escape", "Escape")
    tab.by_id("filter").fill("m")
    tab.press("Enter")
    expect(tab.by_id("search-status")).to_have_text("50 found")
    assert faults(tab) == [], "search"
    tab.press("Escape")
    tab.by_id("filter").fill("")
    tab.by_id("push-go").click()
    expect(tab.page.get_by_role("alert")).to_be_visible()
    assert faults(tab) == [], "error"
    tab.by_id("clear").click()
    tab.page.keyboard.type(tab.name)
    tab.press("Enter")
    expect(tab.by_id("undo")).to_be_visible()
    assert faults(tab) == [], "cleared"
    redis.set(queue, "no list")
    expect(tab.by_id("absent")).to_be_visible()
    assert faults(tab) == [], "fault"
    redis.delete(queue)
    tab.open(tab.name + ".dead")
    assert faults(tab) == [], "dead letters"
    tab.page.goto(tab.url + "/nowhere")
    assert faults(tab) == [], "404"


CONTROLS = [
    *("switch", "all-queues", "language", "theme", "reserved-open", "dead-link"),
    *("push-text", "push-each", "push-front", "push-delay", "push-go", "push-pick", "pop", "reserve"),
    *("filter", "pause", "move", "clear", "open", "remove quiet icon", "curl-line", "curl-copy", "help-open"),
]


def test_tab_reaches_every_control_and_its_focus_is_visible(tab: Tab, seed: Callable[..., None]) -> None:
    seed("a", "b")
    tab.shows("a", "b")
    reached: list[str] = []
    for _ in range(60):
        tab.press("Tab")
        reached.append(tab.focused())
        style = tab.page.evaluate(
            "(style => style.outlineStyle + style.outlineWidth)(getComputedStyle(document.activeElement))"
        )
        assert reached[-1] == "BODY" or style == "solid2px", reached[-1]
        if reached[-1] == "BODY":
            break
    assert [one for one in reached if one in CONTROLS] == CONTROLS


def test_screen_readers_learn_of_changes(tab: Tab, name: str) -> None:
    expect(tab.by_id("live")).to_have_attribute("role", "status")
    tab.by_id("push-text").fill("a")
    tab.by_id("push-go").click()
    expect(tab.page.locator(".toast[role=status]")).to_contain_text("1 message pushed")
    row = tab.page.locator("#rows li").first
    expect(row.get_by_role("button", name="Message 1: a", exact=True)).to_be_visible()
    expect(row).to_have_attribute("aria-posinset", "1")
    expect(row).to_have_attribute("aria-setsize", "1")
    expect(tab.page.get_by_role("button", name="Remove message 1")).to_be_visible()
    expect(tab.page.get_by_role("button", name=f"Queue {name}, switch queue")).to_be_visible()


@pytest.mark.soak
def test_nothing_moves_for_a_visitor_who_prefers_reduced_motion(tabs: Callable[..., Tab]) -> None:
    moves = "getComputedStyle(document.querySelector('.dot')).animationName"
    for preference, name in [("reduce", "none"), ("no-preference", "breathe")]:
        tab = tabs(reduced_motion=preference).open()
        tab.page.context.set_offline(True)
        expect(tab.by_id("live")).to_have_text("Reconnecting")
        assert tab.page.evaluate(moves) == name


def test_the_theme_is_the_systems_until_it_is_switched_and_stays(tabs: Callable[..., Tab]) -> None:
    tab = tabs(color_scheme="dark").open()
    background = "getComputedStyle(document.body).backgroundColor"
    dark = tab.page.evaluate(background)
    tab.page.get_by_role("button", name="Switch to light theme").click()
    light = tab.page.evaluate(background)
    assert light != dark
    expect(tab.page.get_by_role("button", name="Switch to dark theme")).to_be_visible()
    tab.page.reload()
    assert tab.page.evaluate(background) == light
    tab.by_id("theme").focus()
    tab.press("Enter")
    assert tab.page.evaluate(background) == dark
    tab.page.emulate_media(color_scheme="light")
    assert tab.page.evaluate(background) == light


CLEARED = [("pt-BR", "2 mensagens removidas"), ("es-MX", "2 mensajes quitados")]


@pytest.mark.parametrize(("locale", "cleared"), CLEARED)
def test_the_page_and_its_scripts_are_in_the_browsers_language(
    tabs: Callable[..., Tab], seed: Callable[..., None], locale: str, cleared: str
) -> None:
    seed("a", "b")
    tab = tabs(locale=locale).open()
    expect(tab.by_id("push-go")).to_have_text("Enviar")
    tab.shows("a", "b")
    tab.by_id("clear").click()
    tab.page.keyboard.type(tab.name)
    tab.press("Enter")
    expect(tab.by_id("undo-text")).to_have_text(cleared)


def test_the_language_can_be_switched_and_stays(tab: Tab) -> None:
    tab.by_id("push-text").fill("not lost")
    tab.by_id("language").select_option("es")
    expect(tab.by_id("push-title")).to_have_text("Enviar un mensaje")
    expect(tab.by_id("push-text")).to_have_value("not lost")
    tab.page.goto(tab.url + "/nowhere")
    expect(tab.page.locator("h1")).to_have_text("Página no encontrada")
    tab.by_id("language").select_option("pt-BR")
    expect(tab.page.locator("h1")).to_have_text("Página não encontrada")


def test_a_visitor_signs_in_once_and_signing_out_leaves_no_message(tabs: Callable[..., Tab], token_site: App) -> None:
    tab = tabs(url=token_site.url)
    tab.page.goto(f"{tab.url}/q/{tab.name}")
    assert faults(tab) == []
    tab.sign_in("wrong-token")
    expect(tab.page.get_by_role("alert")).to_have_text("Wrong token.")
    assert faults(tab) == []
    tab.sign_in(TOKEN)
    expect(tab.page).to_have_url(f"{tab.url}/q/{tab.name}")
    expect(tab.by_id("live")).to_have_text("Live")
    expect(tab.by_id("empty-curl")).to_contain_text('-H "Authorization: Bearer $API_TOKEN"')
    tab.by_id("push-text").fill("hello")
    tab.by_id("push-go").click()
    tab.shows("hello")
    tab.by_id("pop").click()
    expect(tab.in_hand()).to_have_count(1)
    # After a link on another site, the browser does not send the cookie at first, and yet the page opens.
    other = tab.page.context.new_page()
    other.goto(f"http://localhost:{token_site.port}/login")
    other.evaluate("url => { location.href = url }", f"{tab.url}/q/{tab.name}")
    expect(other.locator("#live")).to_have_text("Live")
    tab.page.get_by_role("button", name="Sign out").click()
    expect(tab.by_id("token")).to_be_visible()
    # A tab that is still open shows it at its next request.
    other.locator("#pop").click()
    expect(other.get_by_role("alert")).to_contain_text("You are signed out. Reload the page to sign in.")
    assert tab.page.evaluate("sessionStorage.length") == 0
    assert tab.page.evaluate("Object.keys(localStorage)") == []  # no popped messages either


def test_a_reader_sees_the_messages_and_no_operations(
    tabs: Callable[..., Tab], token_site: App, seed: Callable[..., None]
) -> None:
    seed("a")
    tab = tabs(token_site.url)
    tab.page.goto(f"{tab.url}/q/{tab.name}")
    tab.sign_in(READ_TOKEN)
    tab.shows("a")
    operations = tab.page.locator("button:visible, input:visible, textarea:visible")
    names = operations.evaluate_all("found => found.map((one) => one.id || one.className || one.textContent)")
    harmless = {"switch", "theme", "filter", "export", "open", "curl-copy", "help-open", "reserved-open"}
    harmless.add("quiet")  # sign out
    assert set(names) == harmless
    assert faults(tab) == []
    tab.page.locator(".row .open").click()
    expect(tab.by_id("message-download")).to_be_visible()
    shown = tab.by_id("message").locator("button:visible")
    assert shown.all_text_contents() == ["×", "Text", "Hex", "Copy", "Download"]


def test_signing_in_works_over_plain_http_by_host_name(tabs: Callable[..., Tab], token_site: App) -> None:
    tab = tabs(url=f"http://queue.test:{token_site.port}")
    tab.page.goto(f"{tab.url}/q/{tab.name}")
    tab.sign_in(TOKEN)
    expect(tab.by_id("live")).to_have_text("Live")
    tab.page.get_by_role("button", name="Sign out").click()
    expect(tab.by_id("token")).to_be_visible()


def test_popped_messages_and_now_and_then_the_count_are_announced(
    tabs: Callable[..., Tab], seed: Callable[..., None]
) -> None:
    tab = tabs()
    tab.page.clock.install()
    tab.open()
    expect(tab.by_id("count")).to_have_text("0")
    assert tab.page.locator("output, .overview [role=status], .overview [aria-live]").count() == 0
    seed("a", "b", "c")
    tab.shows("a", "b", "c")
    expect(tab.by_id("spoken")).to_have_text("")
    tab.page.clock.fast_forward(30_000)
    expect(tab.by_id("spoken")).to_have_text("3 waiting")
    tab.by_id("pop").click()
    expect(tab.by_id("spoken")).to_have_text("Popped: a")


def test_a_button_and_the_question_mark_list_the_shortcuts(tab: Tab) -> None:
    tab.by_id("push-text").focus()
    tab.press("?")
    expect(tab.by_id("push-text")).to_have_value("?")
    expect(tab.by_id("help")).to_be_hidden()
    tab.by_id("help-open").focus()
    tab.press("Enter")
    expect(tab.by_id("help")).to_contain_text("Push the text in the box")
    assert faults(tab) == []
    tab.press("Escape")
    expect(tab.by_id("help-open")).to_be_focused()
    tab.press("?")
    expect(tab.by_id("help")).to_be_visible()
    tab.by_id("help-key").uncheck()
    tab.page.reload()
    tab.press("?")
    tab.by_id("help-open").click()  # if the key had opened the list, it would cover the button
    expect(tab.by_id("help-key")).not_to_be_checked()


def test_a_skip_link_leads_past_the_bar(tab: Tab) -> None:
    tab.press("Tab")
    expect(tab.page.get_by_role("link", name="Skip to the queue")).to_be_focused()
    tab.press("Enter")
    tab.press("Tab")
    assert tab.focused() == "reserved-open"


def test_the_bars_do_not_cover_the_focus(tabs: Callable[..., Tab]) -> None:
    tab = tabs(width=640, height=500).open()
    for _ in range(40):
        tab.press("Tab")
        if tab.focused() in ("BODY", "curl-line"):
            break
        box = "(({ top, bottom }) => [top, bottom])(document.activeElement.getBoundingClientRect())"
        is_in_bar = tab.page.evaluate("document.activeElement.closest('.bar, .skip') !== null")
        top, bottom = tab.page.evaluate(box)
        bar = tab.page.locator(".curl-bar").bounding_box()
        assert bar
        # Of a text box, the line with the cursor must be visible.
        bottom = top + 24 if tab.focused() == "push-text" else bottom
        assert is_in_bar or (top >= 56 and bottom <= bar["y"]) or bottom - top > 300, tab.focused()
    else:
        raise AssertionError("the end of the page was not reached")


def test_on_a_phone_targets_are_large_and_the_first_messages_are_visible(
    tabs: Callable[..., Tab], redis: Any, name: str
) -> None:
    redis.eval("for i = 1, 100000 do redis.call('LPUSH', KEYS[1], 'm' .. i) end", 1, f"queue:{name}")
    tab = tabs(width=390, height=844, has_touch=True, is_mobile=True).open()
    expect(tab.by_id("count")).to_have_text("100,000")
    expect(tab.rows().nth(1)).to_be_in_viewport(ratio=1)
    expect(tab.page.locator(".curl-bar")).to_be_hidden()
    sizes = """[...document.querySelectorAll("button, summary, select, .fact, .options label")]
        .filter((one) => one.checkVisibility()).map((one) => one.getBoundingClientRect().height)"""
    assert min(tab.page.evaluate(sizes)) >= 43
    fonts = """[...document.querySelectorAll("input:not([type=checkbox]), textarea, select")]
        .map((one) => parseFloat(getComputedStyle(one).fontSize))"""
    assert min(tab.page.evaluate(fonts)) >= 16  # or iOS zooms in
    waiters = tab.by_id("waiters").bounding_box()
    assert waiters
    assert waiters["height"] < 30  # on one line
    for width, height in [(740, 360), (320, 256)]:  # a phone on its side, and a zoom of 400 %
        tab.page.set_viewport_size({"width": width, "height": height})
        stuck = "[...document.querySelectorAll('*')].some((one) => getComputedStyle(one).position === 'sticky')"
        assert not tab.page.evaluate(stuck)
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_removal_leaves_the_list_in_place_under_the_finger(
    tabs: Callable[..., Tab], seed: Callable[..., None]
) -> None:
    seed(*(f"m{i}" for i in range(30)))
    tab = tabs(width=390, height=844, has_touch=True, is_mobile=True).open()
    tab.page.locator("#viewport").scroll_into_view_if_needed()
    tab.page.locator("#waiting-title").evaluate("title => title.closest('.card').scrollIntoView()")
    # Not every browser has scroll anchoring.
    tab.page.evaluate("document.documentElement.style.overflowAnchor = 'none'")
    second = tab.page.get_by_role("button", name="Remove message 2")
    before = second.bounding_box()
    assert before
    second.tap()
    expect(tab.in_hand()).to_have_count(1)
    expect(tab.rows().nth(1)).to_have_text("m2")
    until(lambda: abs((second.bounding_box() or before)["y"] - before["y"]) < 2)
    toast = tab.page.locator(".toast", has_text="Removed “m1”")
    toast.get_by_role("button", name="Undo").tap()
    expect(tab.rows().nth(1)).to_have_text("m1")
    expect(tab.rows().nth(2)).to_have_text("m2")
    expect(tab.in_hand()).to_have_count(0)
    expect(tab.by_id("recent")).to_be_hidden()
    assert tab.focused() != "BODY"
    # The second click of a double click would be one on the message that has moved up.
    second.dispatch_event("click", {"detail": 2})
    tab.page.get_by_role("button", name="Remove message 3").dispatch_event("click", {"detail": 1})
    expect(tab.in_hand().locator(".preview")).to_have_text("m2")
    expect(tab.by_id("count")).to_have_text("29")


@pytest.mark.slow
def test_the_title_keeps_the_label_when_the_page_counts(
    tabs: Callable[..., Tab], serve: Callable[..., App], valkey: Store
) -> None:
    app = serve(REDIS_URL=valkey.url, WEB_CONCURRENCY="1", LABEL="staging")
    tab = tabs(app.url, width=390).open()
    expect(tab.page).to_have_title(f"{tab.name} – staging")
    tab.post("push", message="a")
    expect(tab.page).to_have_title(f"(1) {tab.name} – staging")
    expect(tab.by_id("label")).to_be_visible()
    assert faults(tab) == []
    tab.open_queues()
    expect(tab.page).to_have_title(re.compile(" – staging$"))
