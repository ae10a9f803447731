"""The documents: every link, file, test and name in a file that they refer to exists."""

import re
from pathlib import Path

import pytest

from tests.servers import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
PRESENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]  # that speaks of the past as well
every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
every_present_document = pytest.mark.parametrize("document", PRESENT, ids=lambda path: path.name)

LINK = re.compile(r'\]\(([^)#:]*)(?:#([^)]*))?\)|(?:src|srcset)="([^"]+)"')
PATH = re.compile(r"`((?:\.?[\w-]+/)+[\w.-]*|[\w-]+\.[\w.-]+)`")
NAME_IN_PATH = re.compile(r"`([\w-]+)` in `([\w./-]+)`")
TOP = {path.name for path in ROOT.iterdir()} - {"instance"}
TEXTS = {".py", ".lua", ".js", ".html", ".yaml"}


def prose(document: Path) -> str:
    """Return a document without its code blocks, in which a line may break at any space."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"(?<=\S)\n(?: *)(?=[^\s#|*>-])", " ", text)


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's sections, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(document), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def find(path: str) -> Path | None:
    """Return a file or folder of the checkout; a module or a package can be named without `.py`."""
    return next((found for found in (ROOT / path, ROOT / f"{path}.py") if found.exists()), None)


def test_there_are_documents() -> None:
    assert {"README.md", "README.pt-BR.md", "SECURITY.md", "CONTRIBUTING.md"} <= {one.name for one in DOCUMENTS}


@every_document
def test_every_link_leads_somewhere(document: Path) -> None:
    for link, anchor, image in LINK.findall(prose(document)):
        target = document.parent / (link or image or document.name)
        assert target.exists(), link or image
        assert not anchor or anchor in anchors(target), f"{link}#{anchor}"


@every_document
def test_every_test_that_is_named_exists(document: Path) -> None:
    linked = re.findall(r"\[`(test_\w+)`\]\(([^)\s]+)\)", prose(document))
    for name, link in linked:
        assert re.search(rf"^def {name}\(", (document.parent / link).read_text(encoding="utf-8"), re.M), name
    assert len(linked) == len(re.findall(r"`test_\w+`", prose(document))), "a test is named without a link"


@every_present_document
def test_every_path_that_is_named_exists(document: Path) -> None:
    """A path begins with a file or folder of the checkout; other names with a slash are media types or examples."""
    for path in PATH.findall(prose(document)):
        if path.partition("/")[0] in TOP:
            assert find(path), path


@every_present_document
def test_every_name_that_is_said_to_be_in_a_file_is_there(document: Path) -> None:
    for name, path in NAME_IN_PATH.findall(prose(document)):
        if path.partition("/")[0] not in TOP:
            continue
        place = find(path)
        assert place, path
        files = [place] if place.is_file() else [file for file in place.rglob("*") if file.suffix in TEXTS]
        assert any(re.search(rf"\b{name}\b", file.read_text(encoding="utf-8")) for file in files), f"{name} in {path}"


def test_the_architecture_names_many_paths() -> None:
    """Else the two tests above would find nothing to check."""
    text = prose(ROOT / "docs/architecture.md")
    assert len(set(PATH.findall(text))) > 40
    assert len(NAME_IN_PATH.findall(text)) > 15
