"""`seequeue serve`: serve the app that is installed as the package seequeue_server, with its data in the user's folder.

The command `seequeue` of the client finds `serve` by its entry point. Until `serve` has put the folder of the app first
in sys.path, nothing of the app can be imported.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parent.parent
OPTIONS = (  # option, its value, the setting that it sets, what it does
    ("--redis", "URL", "REDIS_URL", "your Redis, instead of the embedded Valkey"),
    ("--lists", "KEYS", "LISTS", "lists of other programs there to look at: celery; *: all"),
    ("--port", "PORT", "PORT", "listen on this port (5000); 0: on a free one"),
    ("--host", "HOST", "HOST", "listen on this address (localhost)"),
    ("--data-dir", "PATH", "DATA_DIR", "the data folder of the embedded Valkey"),
    ("--token-file", "PATH", "API_TOKEN_FILE", "require one of the tokens in this file"),
    ("--label", "TEXT", "LABEL", "show this in the bar and the title of each page"),
    ("--workers", "NUMBER", "WEB_CONCURRENCY", "the number of worker processes (2)"),
)


def serve(arguments: Sequence[str]) -> NoReturn:
    """Become the server, with the settings in the arguments, and else in the environment.

    Relative paths in either start at the working directory. Exit with code 2 and one line on stderr if one is invalid.
    """
    if sys.platform == "win32":
        fail("Seequeue's server runs on Linux and macOS; on Windows, run it in WSL or in Docker")
    sys.path.insert(0, str(ROOT))
    from settings import SETTINGS, from_environment

    options = vars(make_parser([row.name for row in SETTINGS]).parse_args(arguments))
    os.environ.update({name: value for name, value in options.items() if name.isupper() and value is not None})
    if not os.environ.get("REDIS_URL"):
        os.environ["DATA_DIR"] = os.environ.get("DATA_DIR") or str(user_data_folder())
    for row in SETTINGS:
        if row.allowed == "a path" and (path := os.environ.get(row.name)):
            os.environ[row.name] = os.path.abspath(path)
    from_environment()
    pid_file = ["--pid", os.path.abspath(options["pid_file"])] if options["pid_file"] else []
    os.chdir(ROOT)  # from which Python then takes modules first
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *pid_file])


def make_parser(settings: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of the options. Its help fits a terminal of 24 lines."""
    parser = argparse.ArgumentParser(
        "seequeue serve",
        usage="%(prog)s [OPTION...]",
        description="Serve the page and the API. The names in brackets are environment variables.",
        epilog=f"Other variables: {', '.join(sorted({*settings} - {setting for _, _, setting, _ in OPTIONS}))}",
        allow_abbrev=False,
    )
    for option, value, setting, text in OPTIONS:
        parser.add_argument(option, metavar=value, dest=setting, help=f"{text} [{setting}]")
    parser.add_argument(
        "--open", dest="OPEN_BROWSER", action="store_const", const="1", help="open the page in a browser"
    )
    parser.add_argument("--pid-file", metavar="PATH", help="write the process id of the master to this file")
    return parser


def user_data_folder() -> Path:
    """Return the folder for this user's data: not in the installation, which an upgrade replaces, nor in a cache."""
    try:
        if sys.platform == "darwin":
            return Path.home() / "Library/Application Support/seequeue"
        return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "seequeue"
    except RuntimeError:  # a container's user without a home
        fail("Cannot start: this user has no home directory for the data; set --data-dir, or --redis")


def fail(line: str) -> NoReturn:
    """Exit with code 2 and one line on stderr."""
    print(f"{line}.", file=sys.stderr)
    raise SystemExit(2)
