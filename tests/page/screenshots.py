"""Takes the pictures of docs/screenshots/ from the running page: every state, wide and narrow, light and dark.

Run by `make screenshots`; needs Chromium.
"""

import itertools
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

from broker.queue import ReliableQueue
from tests.page.conftest import ARGUMENTS
from tests.servers import ROOT, App, Store, running

FOLDER = ROOT / "docs/screenshots"
SIZES: dict[str, dict[str, Any]] = {
    "wide": {"viewport": {"width": 1280, "height": 800}},
    "narrow": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},  # a phone
}
ORDERS = [
    '{"order":1041,"items":["espresso","croissant"],"table":7}',
    '{"order":1042,"items":["flat white"],"to_go":true}',
    "Remember to refill the beans ☕",
]

QUEUES = {  # the number of messages at first, how it changes with time, and the number of consumers that wait
    "audit": (88, -9, 0),
    "emails.receipts": (128, -25, 4),
    "emails.welcome": (3, 0, 2),
    "exports": (5, -1, 1),
    "orders": (41, -6, 3),
    "payments": (7, 0, 2),
    "payments.refunds": (2, 0, 1),
    "reports.nightly": (12, 0, 0),
    "search.index": (530, -90, 1),
    "sms": (14, 17, 0),
    "thumbnails": (2044, -260, 0),
    "webhooks.stripe": (1, 0, 0),
}


class Scene:
    """The page and the queue of a picture."""

    def __init__(self, page: Page, store: Store, name: str) -> None:
        self.page, self.store, self.name = page, store, name
        self.redis = store.client()

    def push(self, *messages: str) -> None:
        for start in range(0, len(messages), 5000):
            self.redis.lpush("queue:" + self.name, *messages[start : start + 5000])
        expect(self.page.locator("#count")).to_have_text(f"{len(messages):,}")
        expect(self.page.locator(".row .preview").first).not_to_be_empty()

    def history(self) -> None:
        """Fill the chart with some minutes: move the page's clock while the depth goes up and down."""
        for depth in [0, 2, 5, 9, 7, 12, 10, 6, 8, 4, 1, 0]:
            with self.redis.pipeline() as pipeline:
                pipeline.delete("queue:" + self.name)
                if depth:
                    pipeline.lpush("queue:" + self.name, *["x"] * depth)
                pipeline.execute()
            expect(self.page.locator("#count")).to_have_text(str(depth))
            self.page.clock.fast_forward(20_000)


def empty(scene: Scene) -> None:
    expect(scene.page.locator("#empty")).to_be_visible()


def three(scene: Scene) -> None:
    scene.push(*ORDERS)


def many(scene: Scene) -> None:
    scene.push(*(f'{{"order":{i},"items":["espresso","croissant"],"table":{i % 20}}}' for i in range(100_000)))


def popped(scene: Scene) -> None:
    scene.push(*ORDERS)
    scene.page.locator("#pop").click()
    expect(scene.page.locator("#taken .message-card")).to_have_count(1)
    expect(scene.page.locator("#count")).to_have_text("2")


def message(scene: Scene) -> None:
    scene.push(*ORDERS)
    scene.page.locator(".row .open").first.click()
    expect(scene.page.locator("#message-body")).to_contain_text("espresso")


def cleared(scene: Scene) -> None:
    scene.push(*ORDERS)
    scene.page.locator("#clear").click()
    scene.page.keyboard.type(scene.name)
    scene.page.keyboard.press("Enter")
    expect(scene.page.locator("#undo")).to_be_visible()
    expect(scene.page.locator("#empty")).to_be_visible()


def dead(scene: Scene) -> None:
    scene.push(*ORDERS[:2])
    for reason in ("the printer is on fire", "no such table"):
        reservation = post(scene, "reserve")["id"]
        post(scene, "release", id=reservation, dead=True, reason=reason)
    scene.page.goto(scene.page.url + ".dead")
    expect(scene.page.locator(".row")).to_have_count(2)


def post(scene: Scene, operation: str, **fields: Any) -> Any:
    """Call an operation as another client, and return its answer."""
    api = scene.page.url.replace("/q/", "/api/queue/")
    return scene.page.request.post(f"{api}/{operation}", data=fields or None).json()


def held(scene: Scene) -> None:
    scene.push(*ORDERS)
    post(scene, "reserve", lease=45)
    post(scene, "reserve", lease=600)
    post(scene, "push", message="Call the coffee supplier", delay=5400)
    expect(scene.page.locator("#delayed")).to_have_text("1")
    scene.page.locator("#reserved-open").click()
    expect(scene.page.locator("#held-list .message-card")).to_have_count(2)


def paused(scene: Scene) -> None:
    scene.push(*ORDERS)
    scene.page.locator("#pause").click()
    expect(scene.page.locator("#paused")).to_be_visible()
    scene.page.evaluate("scrollTo(0, 0)")


def search(scene: Scene) -> None:
    scene.push(*(f'{{"order":{i},"items":["espresso","croissant"],"table":{i % 20}}}' for i in range(5000)))
    scene.page.locator("#filter").fill('"order":42')
    scene.page.keyboard.press("Enter")
    expect(scene.page.locator("#search-status")).to_have_text("111 found")


def queues(scene: Scene) -> None:
    for name, (depth, _, waiters) in QUEUES.items():
        queue = ReliableQueue(scene.redis, name)
        queue.push(*[b"x"] * depth)
        queue.report_waiters("worker", waiters, 600)
    for name in ("payments", "payments", "webhooks.stripe"):
        queue = ReliableQueue(scene.redis, name)
        queue.release(queue.reserve().messages[0].id, dead=True)
    ReliableQueue(scene.redis, "thumbnails").reserve(600, 16)
    ReliableQueue(scene.redis, "emails.receipts").push_later(5400, [b"x"])
    ReliableQueue(scene.redis, "reports.nightly").pause()
    scene.page.goto(scene.page.url.replace("/q/orders", "/queues"))
    expect(scene.page.locator(".queue-row").first).to_be_visible()
    for number in range(12):  # some minutes of the page's clock
        for name, (depth, growth, _) in QUEUES.items():
            count = depth + growth * number if growth > 0 else depth + growth * (number * 7 % 5)
            scene.redis.ltrim("queue:" + name, 0, count - 1)
            if missing := count - scene.redis.llen("queue:" + name):
                scene.redis.lpush("queue:" + name, *["x"] * missing)
        growing = scene.page.locator(".queue-row").filter(has_text="sms").locator(".count .cell-number")
        expect(growing).to_have_text(f"{QUEUES['sms'][0] + QUEUES['sms'][1] * number:,}")
        scene.page.clock.fast_forward(20_000)
    expect(scene.page.locator("#summary")).to_have_text("12 queues · 3 with problems")


def away(scene: Scene) -> None:
    scene.push(*ORDERS)
    scene.store.end()
    expect(scene.page.locator("#live")).to_have_text("Redis is unavailable")


SCENES: list[Callable[[Scene], None]] = [
    *(empty, three, many, popped, message, cleared, dead, held, paused, search, queues, away),
]


def shots(browser: Any, folder: Path, store: Store) -> Iterator[Path]:
    pictures = itertools.product(SCENES, SIZES.items(), ("light", "dark"))
    for number, (take, (size, options), theme) in enumerate(pictures):
        store.client().flushall()  # a store that only this script uses
        with running(App(folder / str(number), REDIS_URL=store.url)) as app:  # without the history of other pictures
            context = browser.new_context(**options, color_scheme=theme, locale="en-US", reduced_motion="reduce")
            page = context.new_page()
            page.clock.install()
            page.goto(f"{app.url}/q/orders")
            expect(page.locator("#live")).to_have_text("Live")
            scene = Scene(page, store, "orders")
            scene.history()
            take(scene)
            if size == "narrow" and take not in (empty, popped, paused, queues):
                page.locator("#waiting-title").evaluate("title => title.closest('.card').scrollIntoView()")
            page.mouse.move(0, 0)
            path = FOLDER / f"{take.__name__}-{size}-{theme}.png"
            page.screenshot(path=path, animations="disabled")
            if take is away:
                store.start()
            context.close()
        yield path


def main() -> None:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        sys.exit("chromium is not installed")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="q") as folder,
        running(Store("valkey", Path(folder) / "store")) as store,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        for made in shots(browser, Path(folder), store):
            print(f"{made.relative_to(ROOT)}  {made.stat().st_size // 1024} kB", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
