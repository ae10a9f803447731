"""Bundles a module and its imports into one minified script: one request of the browser instead of thirty.

Each imported module becomes a function that is called once with its imports and returns its exports.

    import { byId } from "./dom.js";       const $1 = (({ byId }) => {
    export function mount() {...}            function mount() {...}
                                             return { mount };
                                           })($0);

This is not a parser, so a module must write its imports and exports in these two forms; any other is refused. A module
that uses `import.meta.url` must be in the folder of the entry, because the result is one script.
"""

import re
from pathlib import Path

from rjsmin import jsmin

IMPORT = re.compile(r'^import \{([^}]*)\} from "(\.[^"]*)";$', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:(?:async )?function\*?|class|const) ([\w$]+))", re.MULTILINE)
UNKNOWN = re.compile(r"^(?:import|export)\b(?!\.).*", re.MULTILINE)  # any other form


class Bundle:
    """The script of one module, the entry, and its imports."""

    def __init__(self, entry: Path) -> None:
        """Read and bundle the modules.

        Raises:
            ValueError: the form of an import or export is unknown, a name is not exported, or imports form a cycle.
        """
        self.files: list[Path] = []  # each after its imports
        self._exports: dict[Path, list[str]] = {}
        self._scripts: list[str] = []
        self._add(entry.resolve(), [])
        self.text = jsmin("\n".join(self._scripts))

    def _add(self, file: Path, importers: list[Path]) -> None:
        if file in importers:
            raise ValueError(f"{file.name} imports itself through other modules")
        if file in self._exports:
            return
        text = file.read_text(encoding="utf-8")
        parameters, arguments = [], []
        for names, source in IMPORT.findall(text):
            imported = (file.parent / source).resolve()
            self._add(imported, [*importers, file])
            parameters.append(self._pattern(names, imported))
            arguments.append(f"${self.files.index(imported)}")
        self._exports[file] = EXPORT.findall(text)
        body = EXPORT.sub("", IMPORT.sub("", text))
        if unknown := UNKNOWN.search(body):
            raise ValueError(f"{file.name} cannot be bundled: {unknown[0]}")
        if importers:
            head, foot = f"const ${len(self.files)} = (({', '.join(parameters)}) => {{", "})"
            body = f"{head}\n{body}\nreturn {{ {', '.join(self._exports[file])} }};\n{foot}({', '.join(arguments)});"
        else:
            imports = [f"const {names} = {module};" for names, module in zip(parameters, arguments, strict=True)]
            body = "\n".join([*imports, body])
        self.files.append(file)
        self._scripts.append(body)

    def _pattern(self, names: str, imported: Path) -> str:
        """Return imported names, "a as b" too, as a destructuring pattern."""
        parts = [part.split(" as ") for name in names.split(",") if (part := name.strip())]
        if missing := {part[0] for part in parts} - set(self._exports[imported]):
            raise ValueError(f"{imported.name} does not export {', '.join(sorted(missing))}")
        return "{ " + ", ".join(": ".join(part) for part in parts) + " }"
