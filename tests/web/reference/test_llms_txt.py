"""/llms.txt: the API in one short text for language models."""

import re

from settings import Settings
from tests.conftest import AppOn
from tests.servers import FakeRedis
from web.api import OPERATIONS


def test_it_names_every_operation_and_the_openapi_document_and_needs_no_token(app_on: AppOn) -> None:
    client = app_on(Settings(api_tokens=(b"long-enough-token",), url_prefix="/x"), FakeRedis()).test_client()
    answer = client.get("/x/llms.txt")
    assert (answer.status_code, answer.mimetype) == (200, "text/markdown")
    assert answer.text.startswith("# Seequeue\n\n> ") and "](/x/api/openapi.json)" in answer.text
    listed = re.findall(r"^\* `([A-Z]+) (\S+)`: \S", answer.text, re.M)
    assert sorted(listed) == sorted((operation.method, operation.paths[0]) for operation in OPERATIONS)
    assert "<!--" not in answer.text and "Authorization: Bearer" in answer.text


def test_the_pages_link_to_it(app_on: AppOn) -> None:
    client = app_on(Settings(), FakeRedis()).test_client()
    for path in ("/", "/queues", "/api/docs"):
        assert 'href="/llms.txt"' in client.get(path).text
