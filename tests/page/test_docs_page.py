"""The API reference: a form tries each operation, as the visitor who reads it."""

import subprocess
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.page.conftest import TOKEN, Tab
from tests.page.test_access import faults
from tests.servers import App, Store, until


@pytest.mark.parametrize(("scheme", "width"), [pytest.param("light", 1280, marks=pytest.mark.soak), ("dark", 390)])
def test_an_operation_can_be_tried(tabs: Callable[..., Tab], valkey: Store, scheme: str, width: int) -> None:
    tab = tabs(color_scheme=scheme, width=width, height=900, reduced_motion="reduce")
    page, queue = tab.page, f"queue:{tab.name}"
    logged: list[str] = []
    page.on("console", lambda message: logged.append(message.text))
    page.goto(f"{tab.url}/api/docs#push")
    assert faults(tab) == [], "folded"
    tab.by_id("queue").fill(tab.name)
    form = page.locator("#push form")
    form.get_by_label("Body").fill('{"message": "it\'s"}')
    form.get_by_label("front").check()
    command = form.locator(".curl").inner_text()
    form.get_by_role("button", name="Send request").click()
    expect(form.get_by_role("status")).to_have_text("200 OK")
    expect(form.locator(".answer")).to_contain_text('{"success":true,"message":"it\'s","count":1}')
    expect(form.locator(".answer")).to_contain_text("content-type: application/json")
    assert valkey.client().lrange(queue, 0, -1) == [b"it's"]
    subprocess.run(["bash", "-c", f"{command} --silent --fail"], check=True, capture_output=True, timeout=60)
    assert valkey.client().lrange(queue, 0, -1) == [b"it's", b"it's"]
    page.evaluate("location.hash = '#count'")
    form = page.locator("#count form")
    tab.press("Tab")
    form.get_by_role("button", name="Send request").press("Enter")
    expect(form.locator(".answer")).to_contain_text('"count":2')
    page.evaluate("location.hash = '#events'")
    form = page.locator("#events form")
    form.get_by_role("button", name="Send request").click()
    expect(form.locator(".answer")).to_contain_text("event: queue")
    valkey.client().rpop(queue)
    expect(form.locator(".answer")).to_contain_text('"count":1')
    assert faults(tab) == [], "answered"
    form.get_by_role("button", name="Stop").click()
    expect(form.get_by_role("status")).to_have_text("Stopped")
    page.locator("#pop").evaluate("one => { one.open = true }")
    form = page.locator("#pop form")
    form.get_by_label("wait", exact=True).fill("-1")
    form.get_by_role("button", name="Send request").click()
    expect(form.get_by_role("status")).to_have_text("400 BAD REQUEST")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert [one for one in logged if "400" not in one] == []


def test_it_works_under_a_prefix_with_a_session_and_in_the_visitors_language(
    tabs: Callable[..., Tab], serve: Callable[..., App], valkey: Store
) -> None:
    site = serve(REDIS_URL=valkey.url, API_TOKEN=TOKEN, URL_PREFIX="/queue", WEB_CONCURRENCY="1")
    tab = tabs(url=site.url, locale="es-ES")
    tab.page.goto(f"{site.url}/queue/api/docs")
    tab.sign_in(TOKEN)
    tab.page.wait_for_url(f"{site.url}/queue/api/docs")
    expect(tab.page.locator("h1")).to_have_text("Referencia de la API")
    tab.page.locator("#count summary").click()
    form = tab.page.locator("#count form")
    expect(form.locator(".curl")).to_have_text(
        f'curl -H "Authorization: Bearer $API_TOKEN" {site.url}/queue/api/queue/count'
    )
    form.get_by_role("button", name="Enviar petición").click()
    expect(form.get_by_role("status")).to_have_text("200 OK")
    with tab.page.expect_response("**/api/openapi.json") as answer:
        tab.page.get_by_role("link", name="Documento OpenAPI").click()
    assert answer.value.json()["servers"] == [{"url": "/queue"}]


def test_the_pages_link_to_it(tab: Tab) -> None:
    tab.page.get_by_role("link", name="API reference").click()
    until(lambda: tab.page.url.endswith("/api/docs"))
    expect(tab.page.get_by_role("heading", level=1)).to_have_text("API reference")
