"""The files in static/ as pages refer to them: named by their content, compressed, each module with what it imports.

    css/base.css -> css/base-3f2a9c0d41b7.css

Browsers keep such a file for good: other content has another name. It is made in memory when it is first needed, and
again once a file that it was made of has changed. Under its own name each file is served as it is.
"""

import gzip
import hashlib
import mimetypes
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flask import request, send_from_directory
from werkzeug import Response
from werkzeug.security import safe_join

from web.assets.bundle import Bundle

KEPT_FOR_GOOD = "public, max-age=31536000, immutable"
DIGEST = re.compile(r"-([0-9a-f]{12})(?=\.\w+$)")  # in a file's name
MIN_COMPRESSED_BYTES = 500  # less is not worth it: the headers alone are as long


@dataclass(frozen=True)
class Asset:
    """A file as it is served."""

    body: bytes
    compressed: bytes  # b"" if that saves nothing
    digest: str
    changed: dict[Path, int]  # the files that it was made of, and when each was changed

    def is_current(self) -> bool:
        try:
            return all(_changed(file) == time for file, time in self.changed.items())
        except FileNotFoundError:
            return False


class Assets:
    """The files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Asset] = {}

    def add_digest(self, endpoint: str, values: dict[str, Any]) -> None:
        """Let `url_for("static", filename=...)` name a file by its content."""
        if endpoint == "static" and (asset := self._find(values["filename"])):
            stem, _, suffix = values["filename"].rpartition(".")
            values["filename"] = f"{stem}-{asset.digest}.{suffix}"

    def serve(self, filename: str) -> Response:
        """Answer the request for a file.

        A digest that is not that of the content belongs to another version of the app, which serves the page while this
        one is starting or ending: such a visitor gets what there is, and asks again the next time.
        """
        digest = DIGEST.search(filename)
        asset = self._find(DIGEST.sub("", filename)) if digest else None
        if digest is None or asset is None:
            return send_from_directory(self._folder, filename)
        response = Response(asset.body, mimetype=mimetypes.guess_type(filename)[0])
        response.headers["Cache-Control"] = KEPT_FOR_GOOD if digest[1] == asset.digest else "no-cache"
        if asset.compressed:
            compress(response, lambda _: asset.compressed)
        response.set_etag(asset.digest + (response.content_encoding or ""))
        return response.make_conditional(request)

    def _find(self, name: str) -> Asset | None:
        """Return the file of that name, None if there is none."""
        path = safe_join(str(self._folder), name)
        if path is None or not os.path.isfile(path):
            return None
        asset = self._made.get(path)
        if asset is None or not asset.is_current():
            asset = self._made[path] = _make(Path(path))
        return asset


def _make(file: Path) -> Asset:
    if file.suffix == ".js":
        bundle = Bundle(file)
        files, body = bundle.files, bundle.text.encode()
    else:
        files, body = [file], file.read_bytes()
    compressed = gzip.compress(body, mtime=0) if len(body) >= MIN_COMPRESSED_BYTES else b""
    return Asset(body, compressed, hashlib.sha256(body).hexdigest()[:12], {file: _changed(file) for file in files})


def _changed(file: Path) -> int:
    return file.stat().st_mtime_ns


# --- compressed answers


def compress_page(response: Response) -> Response:
    """Compress a page.

    The length of an answer could tell a secret in it to somebody who can have a text of his own put beside it (BREACH).
    A page repeats the queue's name in its address, but it holds neither a token nor a message. The answers of the API
    do hold messages, so they are not compressed.
    """
    if response.mimetype == "text/html" and (response.calculate_content_length() or 0) >= MIN_COMPRESSED_BYTES:
        compress(response, lambda page: gzip.compress(page, compresslevel=6, mtime=0))
    return response


def compress(response: Response, compressed: Callable[[bytes], bytes]) -> None:
    """Send the compressed body to a client that can read it."""
    response.vary.add("Accept-Encoding")
    if request.accept_encodings.quality("gzip") > 0:
        response.set_data(compressed(response.get_data()))
        response.content_encoding = "gzip"
