"""Static files for pages: named by a digest of their content, compressed, each script bundled with its imports.

    css/base.css -> css/base-3f2a9c0d41b7.css

Browsers cache such a file forever, since other content has another name. It is built in memory when it is first
requested, and rebuilt once a source file has changed. Under its plain name each file is served unchanged.
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

CACHED_FOREVER = "public, max-age=31536000, immutable"
CSS_COMMENT = re.compile(rb"/\*.*?\*/\n?", re.DOTALL)
DIGEST = re.compile(r"-([0-9a-f]{12})(?=\.\w+$)")  # in a file's name
MIN_COMPRESSED_BYTES = 500  # a smaller body is not worth it: the headers alone are as long


@dataclass(frozen=True)
class Asset:
    """A built file."""

    body: bytes
    compressed: bytes  # b"" if the body is too small
    digest: str
    sources: dict[Path, int]  # source file -> its modification time

    def is_current(self) -> bool:
        try:
            return all(_modified(file) == time for file, time in self.sources.items())
        except FileNotFoundError:
            return False


class Assets:
    """The static files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._built: dict[str, Asset] = {}

    def add_digest(self, endpoint: str, values: dict[str, Any]) -> None:
        """Let `url_for("static", filename=...)` name a file with its digest."""
        if endpoint == "static" and (asset := self._find(values["filename"])):
            stem, _, suffix = values["filename"].rpartition(".")
            values["filename"] = f"{stem}-{asset.digest}.{suffix}"

    def serve(self, filename: str) -> Response:
        """Serve a file.

        A digest of other content comes from a page of another version of the app, while one replaces the other. It
        gets the current content, which the browser must not cache.
        """
        digest = DIGEST.search(filename)
        asset = self._find(DIGEST.sub("", filename)) if digest else None
        if digest is None or asset is None:
            return send_from_directory(self._folder, filename)
        response = Response(asset.body, mimetype=mimetypes.guess_type(filename)[0])
        response.headers["Cache-Control"] = CACHED_FOREVER if digest[1] == asset.digest else "no-cache"
        if asset.compressed:
            compress(response, lambda _: asset.compressed)
        response.set_etag(asset.digest + (response.content_encoding or ""))
        return response.make_conditional(request)

    def _find(self, name: str) -> Asset | None:
        """Return the file with this name, or None."""
        path = safe_join(str(self._folder), name)
        if path is None or not os.path.isfile(path):
            return None
        asset = self._built.get(path)
        if asset is None or not asset.is_current():
            asset = self._built[path] = _build(Path(path))
        return asset


def _build(file: Path) -> Asset:
    if file.suffix == ".js":
        bundle = Bundle(file)
        files, body = bundle.files, bundle.text.encode()
    else:
        files, body = [file], file.read_bytes()
    if file.suffix == ".css":
        body = CSS_COMMENT.sub(b"", body)
    compressed = gzip.compress(body, mtime=0) if len(body) >= MIN_COMPRESSED_BYTES else b""
    return Asset(body, compressed, hashlib.sha256(body).hexdigest()[:12], {file: _modified(file) for file in files})


def _modified(file: Path) -> int:
    return file.stat().st_mtime_ns


# --- compression


def compress_page(response: Response) -> Response:
    """Compress a page, but no answer of the API.

    The length of a compressed response reveals a secret in it to an attacker who can add text beside it (BREACH). A
    page repeats the name of the queue from its URL, but has no token or message. Answers of the API have messages.
    """
    if response.mimetype == "text/html" and (response.calculate_content_length() or 0) >= MIN_COMPRESSED_BYTES:
        compress(response, lambda page: gzip.compress(page, compresslevel=6, mtime=0))
    return response


def compress(response: Response, compressed: Callable[[bytes], bytes]) -> None:
    """Send the compressed body to a client that accepts it."""
    response.vary.add("Accept-Encoding")
    if request.accept_encodings.quality("gzip") > 0:
        response.set_data(compressed(response.get_data()))
        response.content_encoding = "gzip"
