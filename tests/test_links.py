"""The documents: each link leads to a file and a section that exist, and each test that is named is there."""

import re
from pathlib import Path

import pytest

from tests.servers import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
LINK = re.compile(r'\]\(([^)#:]*)(?:#([^)]*))?\)|(?:src|srcset)="([^"]+)"')


def prose(document: Path) -> str:
    """Return a document without its code blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's sections, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(document), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_there_are_documents() -> None:
    assert {"README.md", "README.pt-BR.md", "SECURITY.md", "CONTRIBUTING.md"} <= {one.name for one in DOCUMENTS}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link, anchor, image in LINK.findall(prose(document)):
        target = document.parent / (link or image or document.name)
        assert target.exists(), link or image
        assert not anchor or anchor in anchors(target), f"{link}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_is_named_exists(document: Path) -> None:
    linked = re.findall(r"\[`(test_\w+)`\]\(([^)\s]+)\)", prose(document))
    for name, link in linked:
        assert re.search(rf"^def {name}\(", (document.parent / link).read_text(encoding="utf-8"), re.M), name
    assert len(linked) == len(re.findall(r"`test_\w+`", prose(document))), "a test is named without a link"
