"""requirements.lock and sbom.json list every package that the image installs. `make lock` updates both."""

import json
import re
import shlex

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.servers import ROOT

LOCK = (ROOT / "requirements.lock").read_text()


def locked() -> dict[str, str]:
    """Return the version of each package, by its name."""
    rows = re.findall(r"^([A-Za-z0-9._-]+)==([^ ]+)", LOCK, re.M)
    return {canonicalize_name(name): version for name, version in rows}


def test_the_lock_has_every_requirement_in_the_same_version() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = [Requirement(text) for line in lines if (text := line.partition("#")[0].strip())]
    assert len(required) >= 9
    for requirement in required:
        assert str(requirement.specifier) == f"=={locked()[canonicalize_name(requirement.name)]}", "run: make lock"


def test_every_package_in_the_lock_has_hashes() -> None:
    packages = re.split(r"\n(?=\S)", LOCK.strip())
    for package in packages:
        if not package.startswith("#"):
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", package), package


def test_the_image_installs_the_lock_and_nothing_else() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    [install] = re.findall(r"pip install [^&\n]*", dockerfile)
    words = shlex.split(install)
    assert "--require-hashes" in words and words[-2:] == ["-r", "requirements.lock"]


def test_the_list_of_components_is_that_of_the_lock() -> None:
    listed = json.loads((ROOT / "sbom.json").read_text())
    assert listed["bomFormat"] == "CycloneDX"
    found = {canonicalize_name(one["name"]): one["version"] for one in listed["components"]}
    assert found == locked(), "run: make lock"
