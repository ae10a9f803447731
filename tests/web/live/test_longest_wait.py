"""The longest wait: proxies cut off what is silent for 60 seconds, so the answer comes before."""

import json
import re
import time
import urllib.request

import pytest

from tests.conftest import Api
from tests.servers import ROOT, App
from web.live import long_poll
from web.live.long_poll import ANSWER_TIMEOUT, BLOCK_SECONDS, MAX_WAIT


@pytest.mark.parametrize("verb", ["pop", "reserve"])
def test_a_wait_of_60_is_accepted_and_answered_before(api: Api, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_poll, "ANSWER_TIMEOUT", 0.2)
    started = time.monotonic()
    assert api.post(f"{verb}?wait=60").json["error"] == "empty"
    assert api.post(f"{verb}?wait=60&max=2").json["messages"] == []
    assert time.monotonic() - started < 20
    assert api.post(f"{verb}?wait=60.1").status_code == 400


def test_the_order_of_time_limits() -> None:
    text = (ROOT / "gunicorn.conf.py").read_text(encoding="utf-8")
    [graceful] = re.findall(r"^graceful_timeout = (\d+)", text, re.M)
    assert ANSWER_TIMEOUT + BLOCK_SECONDS <= 55 < MAX_WAIT == 60 < int(graceful)


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_real_wait_of_60_is_answered_within_55_seconds(site: App, name: str) -> None:
    started = time.monotonic()
    request = urllib.request.Request(f"{site.url}/api/queue/{name}/pop?wait=60", method="POST")
    with urllib.request.urlopen(request, timeout=90) as answer:
        assert json.load(answer)["error"] == "empty"
    assert 50 < time.monotonic() - started < 58  # 55, and what a busy machine needs
