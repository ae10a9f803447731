"""Paths of unix sockets: an address has room for about a hundred bytes, a checkout may lie deeper."""

import contextlib
import os
import tempfile
from collections.abc import Iterator

MAX_PATH_BYTES = 103  # an address has 104 bytes on macOS and 108 on Linux, with a closing zero


@contextlib.contextmanager
def short_path(path: str) -> Iterator[bytes]:
    """Yield a path, good inside the block, to connect to the socket at `path`: a short one if that is too long.

    It is in bytes, so that it does not depend on the locale.

    Raises:
        OSError: there is no such socket.
    """
    encoded = path.encode()
    if len(encoded) <= MAX_PATH_BYTES:
        yield encoded
    elif hasattr(os, "O_PATH"):  # Linux
        file = os.open(encoded, os.O_PATH | os.O_CLOEXEC)
        try:
            yield b"/proc/self/fd/%d" % file
        finally:
            os.close(file)
    else:
        with tempfile.TemporaryDirectory(dir="/tmp") as folder:
            link = os.path.join(folder, "socket").encode()
            os.symlink(encoded, link)
            yield link
