"""The pages: a queue's page and the sign-in page, in the visitor's language."""

import json
from pathlib import Path
from typing import Any

from flask import Blueprint, current_app, redirect, render_template, request, url_for
from werkzeug import Response
from werkzeug.routing import BaseConverter

from settings import NAME
from web import body as messages
from web import security as guard
from web.body import Parameters
from web.errors import bad

pages = Blueprint("pages", __name__)

FOLDER = Path(__file__).parent.parent
LANGUAGES = {"en": "English", "pt-BR": "Português", "es": "Español"}
# One catalogue a language, for the templates here and for the page's modules alike.
CATALOGUES: dict[str, dict[str, Any]] = {
    code: json.loads((FOLDER / "translations" / f"{code}.json").read_text()) for code in LANGUAGES
}
# What home.js imports, so that the browser asks for all at once.
MODULES = sorted({path.name for path in (FOLDER / "static/js").glob("*.js")} - {"home.js", "login.js", "theme.js"})


class AnyText(BaseConverter):
    """A queue's name as it was sent, slashes too: whether it is one is for `checked_name` to say."""

    regex = r"[\s\S]*?"
    part_isolating = False


def checked_name(name: str | None) -> str:
    """Return the name of a queue, the default one's for None; what is no name is refused (400)."""
    if name is None:
        return str(current_app.config["QUEUE_NAME"])
    if not NAME.fullmatch(name):
        raise bad("A queue's name is 1 to 128 of A-Z a-z 0-9 . _ - and :", "bad_name")
    return name


# --- languages


def language() -> str:
    """Return the language that the visitor chose by the switch, else the best for Accept-Language."""
    chosen = request.cookies.get("lang", "")
    if chosen in LANGUAGES:
        return chosen
    short = {code.split("-")[0]: code for code in LANGUAGES}
    return short[request.accept_languages.best_match(list(short), "en")]


def t(key: str, **values: str) -> str:
    """Return a text of the catalogue in the visitor's language. Templates need no plural forms, the modules do."""
    text = CATALOGUES[language()][key]
    return str(text["other"] if isinstance(text, dict) else text).format_map(values)


def t_error(code: str, sentence: str) -> str:
    """Return the text of an error's code, the given sentence where the catalogue has none."""
    return str(CATALOGUES[language()].get(f"error.{code}", sentence))


@pages.app_context_processor
def for_templates() -> dict[str, Any]:
    return {
        "t": t,
        "t_error": t_error,
        "lang": language(),
        "languages": LANGUAGES,
        "signed_in": guard.has_session(),
    }


# --- pages


@pages.get("/")
@pages.get("/q/<any:name>")
def home(name: str | None = None) -> str:
    """The page of a queue."""
    name = checked_name(name)
    page = {
        "name": name,
        "token": bool(current_app.config["API_TOKEN"]),
        "longest": current_app.config["MAX_MESSAGE_BYTES"],
        "language": language(),
        "catalogue": CATALOGUES[language()],
    }
    alive = name[: -len(".dead")] if name.endswith(".dead") else ""
    return render_template("home.html", name=name, alive=alive, page=page, modules=MODULES)


@pages.get("/login")
def login_page() -> Response | str:
    """The sign-in page; without a token, or signed in, there is nothing to ask."""
    return redirect(url_for("pages.home")) if guard.allowed() else sign_in("/")


def sign_in(to: str, wrong: bool = False) -> str:
    """Return the sign-in page, which leads to the page that the visitor wanted."""
    return render_template("login.html", to=local(to), wrong=wrong)


def local(path: str) -> str:
    """Return the path if it is a queue's page, else home: a link must not lead to a foreign site."""
    return path if path.startswith("/q/") and NAME.fullmatch(path[len("/q/") :]) else url_for("pages.home")


@pages.post("/login")
def login() -> Response | tuple[str, int]:
    """Give a session for the token."""
    fields = messages.fields()
    to, token = Parameters(fields).text("to") or "/", fields.get("token")
    if not isinstance(token, str) or not guard.same_token(token):  # of the body alone: an address lands in logs
        return sign_in(to, wrong=True), 401
    response = redirect(local(to), 303)
    guard.give_session(response)
    return response


@pages.post("/logout")
def logout() -> Response:
    """End the browser's session."""
    response = redirect(url_for("pages.home"), 303)
    guard.end_session(response)
    return response
