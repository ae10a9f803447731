"""The catalogues: every language has every text, every text is used, every used text is there."""

import json
import re
from typing import Any

import pytest

from tests.servers import ROOT

LANGUAGES = ["en", "pt-BR", "es"]
CATALOGUES: dict[str, dict[str, Any]] = {
    language: json.loads((ROOT / f"translations/{language}.json").read_text()) for language in LANGUAGES
}
TEMPLATES = "".join(path.read_text() for path in (ROOT / "templates").glob("*.html"))
MODULES = "".join(path.read_text() for path in (ROOT / "static/js").rglob("*.js"))
PROGRAM = "".join(path.read_text() for folder in ("", "web/**/", "broker/**/") for path in ROOT.glob(folder + "*.py"))


def values(text: Any) -> set[str]:
    """Return what a text names in braces; its plural forms name the same."""
    forms = list(text.values()) if isinstance(text, dict) else [text]
    named = [set(re.findall(r"{(\w+)}", form)) for form in forms]
    assert named[-1] == set().union(*named)
    return named[-1]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_same_texts_in_the_same_order(language: str) -> None:
    assert list(CATALOGUES[language]) == list(CATALOGUES["en"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_the_same_values_and_leaves_nothing_empty(language: str) -> None:
    for key, text in CATALOGUES[language].items():
        other = CATALOGUES["en"][key]
        assert values(text) == values(other), key
        assert isinstance(text, dict) == isinstance(other, dict), key
        forms = text if isinstance(text, dict) else {"other": text}
        assert "other" in forms and set(forms) <= {"one", "many", "other"} and all(forms.values()), key


def test_no_language_repeats_english_by_mistake() -> None:
    same_everywhere = {"waiting.json", "waiting.bytes", "view.hex", "login.token"}
    for language in ("pt-BR", "es"):
        same = {key for key, text in CATALOGUES[language].items() if text == CATALOGUES["en"][key]}
        assert same <= same_everywhere, language


def test_every_text_is_used() -> None:
    made = [prefix for prefix in re.findall(r"`([\w.]+\.)\$\{", MODULES) if prefix != "error."]
    for key in CATALOGUES["en"]:
        quoted = re.compile(rf"""["']{re.escape(key)}["']""")
        if key.startswith("error."):
            code = key.removeprefix("error.")
            assert f'"{code}"' in PROGRAM + MODULES, key
        else:
            used = quoted.search(TEMPLATES) or quoted.search(MODULES) or any(key.startswith(p) for p in made)
            assert used, key


def test_every_used_text_is_there() -> None:
    used = set(re.findall(r"\bt\(['\"]([\w.]+)['\"]", TEMPLATES + MODULES))
    assert len(used) > 80
    assert used <= set(CATALOGUES["en"])
