"""The pages: of a queue, of all queues, of the API reference, and for signing in, in the language of the visitor."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import Blueprint, after_this_request, current_app, redirect, render_template, request, url_for
from werkzeug import Response
from werkzeug.datastructures import LanguageAccept
from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_accept_header
from werkzeug.routing import BaseConverter

from broker.keys import DEAD_SUFFIX, NAME_PATTERN, is_name, parent_name
from web import __version__
from web.access import auth as security
from web.errors import ERRORS
from web.input.body import read_fields
from web.input.parameters import Text, parse, validate_name
from web.live.queue_feed import MAX_NEXT
from web.operations.schemas import COUNTS
from web.operations.shared import CONTAINS, LEASE, MAX_DELAY, MAX_TEXT, WAIT
from web.reference.openapi import document, groups
from web.request import current_request

pages = Blueprint("pages", __name__)

ROOT = Path(__file__).parent.parent
LANGUAGES = {"en": "English", "pt-BR": "Português", "es": "Español"}
# One catalogue per language, for the templates and for the JavaScript modules.
CATALOGUES: dict[str, dict[str, Any]] = {
    code: json.loads((ROOT / "translations" / f"{code}.json").read_text(encoding="utf-8")) for code in LANGUAGES
}
MAX_ACCEPT_LANGUAGE = 500  # characters that are read: a header can have 64 KiB, and each takes long to compare
LINKED_PAGES = ("pages.home", "pages.queues", "pages.docs")  # pages that a sign-in can return to
DOCS_TEXTS = ("docs.waiting", "docs.stopped", "error.offline")  # texts that docs.js shows


class AnyText(BaseConverter):
    """The name of a queue as it was sent, slashes included; `validate_name` checks it."""

    regex = r"[\s\S]*?"
    part_isolating = False


# --- languages


def language() -> str:
    """Return the language that the visitor chose, else the best match for Accept-Language."""
    chosen = request.cookies.get("lang", "")
    if chosen in LANGUAGES:
        return chosen
    return best_language(request.headers.get("Accept-Language", "")[:MAX_ACCEPT_LANGUAGE])


@lru_cache(maxsize=100)
def best_language(accepted: str) -> str:
    """Return the best match for an Accept-Language: the first language we have, in any region; English without one."""
    short = {code.split("-")[0]: code for code in LANGUAGES}
    for wanted, quality in parse_accept_header(accepted, LanguageAccept):
        primary = wanted.lower().split("-")[0]
        if quality > 0 and primary in short:
            return short[primary]
    return "en"


def t(key: str, **values: str) -> str:
    """Return a text in the language of the visitor. Plural forms are for the JavaScript modules only."""
    text = CATALOGUES[language()][key]
    return str(text["other"] if isinstance(text, dict) else text).format_map(values)


def t_error(code: str, sentence: str) -> str:
    """Return the translated sentence of an error code, or the given one if there is no translation."""
    return str(CATALOGUES[language()].get(f"error.{code}", sentence))


@pages.app_context_processor
def for_templates() -> dict[str, Any]:
    return {
        "t": t,
        "t_error": t_error,
        "lang": language(),
        "languages": LANGUAGES,
        "signed_in": bool(security.session_token(current_request())),
        "can_write": can_write(),
        "counts": [name for name in COUNTS if name != "paused"],
        "version": __version__,
        "label": current_request().settings.label,
        "user": current_request().user,
    }


def can_write() -> bool:
    """Return whether the visitor may change queues. If not, the pages hide the buttons for it."""
    request = current_request()
    token = security.session_token(request) or security.find_token(security.bearer_token(request), request.settings)
    return not request.settings.tokens or token in request.settings.api_tokens


# --- pages

LIMITS = {  # of what a visitor can enter: seconds, characters, messages
    "name": NAME_PATTERN.pattern,
    "delay": MAX_DELAY,
    "lease": int(LEASE.maximum),
    "default_lease": LEASE.default,
    "wait": int(WAIT.maximum),
    "reason": MAX_TEXT,
    "contains": CONTAINS.maximum,
    "next": MAX_NEXT,
}


@pages.get("/")
@pages.get("/q/<any:name>")
def home(name: str | None = None) -> str:
    """Show the page of a queue."""
    settings = current_request().settings
    name = settings.queue_name if name is None else validate_name(name)
    page = {
        "name": name,
        "token": bool(settings.tokens),
        "can_write": can_write(),
        "max_message_bytes": settings.max_message_bytes,
        "max_deliveries": settings.max_deliveries,
        "limits": LIMITS,
        "language": language(),
        "catalogue": CATALOGUES[language()],
    }
    return render_template("home.html", name=name, parent=parent_name(name) or "", dead=name + DEAD_SUFFIX, page=page)


@pages.get("/api/docs")
def docs() -> str:
    """Show the API reference, with a form to try each call."""
    settings = current_request().settings
    catalogue = {key: text for key, text in CATALOGUES[language()].items() if key in DOCS_TEXTS}
    page = {"token": bool(settings.tokens), "language": language(), "catalogue": catalogue}
    made = document(settings, current_app)
    return render_template("docs.html", document=made, groups=groups(made), codes=ERRORS, page=page)


@pages.get("/llms.txt")
def llms() -> Response:
    """Describe the API to language models, as https://llmstxt.org proposes."""
    made = document(current_request().settings, current_app)
    return Response(render_template("llms.txt", document=made, groups=groups(made)), mimetype="text/markdown")


@pages.get("/queues")
def queues() -> str:
    """Show the page of all queues."""
    page = {"limits": LIMITS, "language": language(), "catalogue": CATALOGUES[language()]}
    return render_template("queues.html", page=page)


# --- signing in

MAX_LOGIN_BYTES = 4096  # read before the client has shown a token
LOGIN_PARAMETERS = (Text("token", in_query=False), Text("to", default="/"))  # URLs end up in logs, so no token in them


@pages.get("/login")
def login_page() -> Response | str:
    """Show the sign-in page, unless no token is needed or the visitor is signed in."""
    return redirect(url_for("pages.home")) if security.access_of(current_request()) else render_sign_in("/")


def render_sign_in(to: str, wrong: bool = False) -> str:
    """Return the sign-in page, which then redirects to the page `to`."""
    return render_template("login.html", to=local(to), wrong=wrong)


def local(path: str) -> str:
    """Return the path if it is one of our pages, else "/": a sign-in must not redirect to another site."""
    try:
        endpoint, values = current_app.url_map.bind("").match(path)
    except (HTTPException, ValueError):
        return "/"
    return path if endpoint in LINKED_PAGES and is_name(values.get("name", "default")) else "/"


@pages.post("/login")
def login() -> Response | tuple[str, int]:
    """Start a session for the token."""
    request = current_request()
    sent = parse(request, LOGIN_PARAMETERS, read_fields(request, MAX_LOGIN_BYTES))
    token = security.verify_token(sent["token"] or "", request)
    if not token:
        return render_sign_in(sent["to"], wrong=True), 401
    response = redirect(request.settings.url_prefix + local(sent["to"]), 303)
    security.start_session(request, response, token)
    return response


@pages.post("/logout")
def logout() -> Response:
    """End the session, for copies of its cookie too. While Redis is unavailable it ends in this browser only (503)."""
    request = current_request()

    @after_this_request
    def forget(response: Response) -> Response:
        security.forget_session(request, response)
        return response

    security.end_session(request)
    return redirect(url_for("pages.home"), 303)
