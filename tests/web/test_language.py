"""The language of the pages: the one that the visitor chose, else the one that the browser prefers."""

import pytest

from tests.conftest import Api


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("fr", "en"),
        ("*", "en"),
        ("es", "es"),
        ("ES-mx", "es"),
        ("pt", "pt-BR"),
        ("pt-PT", "pt-BR"),
        ("es-MX,en;q=0.5", "es"),
        ("en;q=0.5,es-MX", "es"),
        ("fr-CA,pt-PT;q=0.8,es;q=0.6", "pt-BR"),
        ("fr,*;q=0.5", "en"),
        ("es;q=0,pt;q=0.1", "pt-BR"),
        ("est,esperanto,pt", "pt-BR"),
    ],
)
def test_a_region_falls_back_to_its_language_before_another_language(api: Api, accepted: str, language: str) -> None:
    page = api.http.get("/", headers={"Accept-Language": accepted}).text
    assert f'<html lang="{language}"' in page
