"""What hatchling cannot read from pyproject.toml: the requirements of the distribution `seequeue`.

It needs the very versions of requirements.txt, because it extends gunicorn and redis-py, and the client of its own
version.
"""

from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Requirements(MetadataHookInterface):
    """Adds the dependencies."""

    def update(self, metadata: dict[str, Any]) -> None:
        lines = (Path(self.root) / "requirements.txt").read_text(encoding="utf-8").splitlines()
        pinned = [text for line in lines if (text := line.partition("#")[0].strip())]
        metadata["dependencies"] = [*pinned, f"seequeue-client=={metadata['version']}"]
