"""The pages: a queue's page, in the visitor's language."""

from flask import Blueprint, current_app, render_template
from werkzeug.routing import BaseConverter

from answers import bad
from settings import NAME

pages = Blueprint("pages", __name__)


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


@pages.get("/")
@pages.get("/q/<any:name>")
def home(name: str | None = None) -> str:
    """The page of a queue."""
    return render_template("home.html", name=checked_name(name))
