"""The catalogues: every language has every text, every text is used, and every text that is used exists."""

import json
import re
from typing import Any

import pytest

from tests.conftest import Api
from tests.servers import ROOT
from web.operations.schemas import COUNTS

LANGUAGES = ["en", "pt-BR", "es"]
CATALOGUES: dict[str, dict[str, Any]] = {
    language: json.loads((ROOT / f"translations/{language}.json").read_text()) for language in LANGUAGES
}
TEMPLATES = "".join(path.read_text() for path in (ROOT / "templates").glob("*.html"))
MODULES = "".join(path.read_text() for path in (ROOT / "static/js").rglob("*.js"))
PROGRAM = "".join(path.read_text() for folder in ("", "web/**/", "broker/**/") for path in ROOT.glob(folder + "*.py"))


def placeholders(text: Any) -> set[str]:
    """Return the placeholders of a text; all its plural forms have those of the last one."""
    forms = list(text.values()) if isinstance(text, dict) else [text]
    found = [set(re.findall(r"{(\w+)}", form)) for form in forms]
    assert found[-1] == set().union(*found)
    return found[-1]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_same_texts_in_the_same_order(language: str) -> None:
    assert list(CATALOGUES[language]) == list(CATALOGUES["en"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_uses_the_same_placeholders_and_no_text_is_empty(language: str) -> None:
    for key, text in CATALOGUES[language].items():
        english = CATALOGUES["en"][key]
        assert placeholders(text) == placeholders(english), key
        assert isinstance(text, dict) == isinstance(english, dict), key
        forms = text if isinstance(text, dict) else {"other": text}
        assert "other" in forms and set(forms) <= {"one", "many", "other"} and all(forms.values()), key


def test_no_text_is_left_in_english_by_mistake() -> None:
    same_everywhere = {"waiting.json", "waiting.bytes", "view.hex", "login.token"}
    for language in ("pt-BR", "es"):
        same = {key for key, text in CATALOGUES[language].items() if text == CATALOGUES["en"][key]}
        assert same <= same_everywhere, language


def test_every_text_is_used() -> None:
    prefixes = [prefix for prefix in re.findall(r"`([\w.]+\.)\$\{", MODULES) if prefix != "error."]
    labels = {f"{name}.label" for name in COUNTS}
    for key in CATALOGUES["en"]:
        quoted = re.compile(rf"""["']{re.escape(key)}["']""")
        if key.startswith("error."):
            code = key.removeprefix("error.")
            assert f'"{code}"' in PROGRAM + MODULES, key
        else:
            is_composed = key in labels or any(key.startswith(prefix) for prefix in prefixes)
            assert is_composed or quoted.search(TEMPLATES) or quoted.search(MODULES), key


def test_every_text_that_is_used_exists() -> None:
    used = set(re.findall(r"\bt\(['\"]([\w.]+)['\"]", TEMPLATES + MODULES))
    assert len(used) > 80
    assert used <= set(CATALOGUES["en"])


ACCEPTED = [("en-GB", "en"), ("pt-BR", "pt-BR"), ("pt-PT", "pt-BR"), ("es-MX,es;q=0.9,en;q=0.8", "es")]
ACCEPTED += [("ja-JP", "en"), ("", "en")]


@pytest.mark.parametrize(("accepted", "language"), ACCEPTED)
def test_a_page_is_in_the_best_language_for_the_browser(named_api: Api, accepted: str, language: str) -> None:
    page = named_api.http.get("/", headers={"Accept-Language": accepted}).text
    assert f'<html lang="{language}">' in page
    assert CATALOGUES[language]["push.title"] in page


def test_the_language_that_the_visitor_chose_has_precedence(named_api: Api) -> None:
    named_api.http.set_cookie("lang", "es")
    assert '<html lang="es">' in named_api.http.get("/", headers={"Accept-Language": "pt-BR"}).text
