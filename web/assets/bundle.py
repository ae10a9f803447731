"""Joins a module and all that it imports into one short script, so that a browser asks once instead of thirty times.

Each imported module becomes a function: it is called once, with what it imports, and returns what it exports.

    import { byId } from "./dom.js";       const $1 = (({ byId }) => {
    export function mount() {...}            function mount() {...}
                                             return { mount };
                                           })($0);

That is no parser, so a module has to write its imports and exports in these two ways. Any other way is refused. What
uses `import.meta.url` must be in the folder of the entry, since there is only one script then.
"""

import re
from pathlib import Path

from rjsmin import jsmin

IMPORT = re.compile(r'^import \{([^}]*)\} from "(\.[^"]*)";$', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:(?:async )?function\*?|class|const) ([\w$]+))", re.MULTILINE)
UNKNOWN = re.compile(r"^(?:import|export)\b(?!\.).*", re.MULTILINE)  # what the two have left over


class Bundle:
    """The script of one module, the entry, and of all that it imports."""

    def __init__(self, entry: Path) -> None:
        """Read the modules.

        Raises:
            ValueError: an import or export is not understood, a name is not exported, or modules import each other.
        """
        self.files: list[Path] = []  # each after those that it imports
        self._exports: dict[Path, list[str]] = {}
        self._scripts: list[str] = []
        self._add(entry.resolve(), [])
        self.text = jsmin("\n".join(self._scripts))

    def _add(self, file: Path, importers: list[Path]) -> None:
        if file in importers:
            raise ValueError(f"{file.name} imports itself through others")
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
            raise ValueError(f"{file.name} cannot be joined with others: {unknown[0]}")
        if importers:
            head, foot = f"const ${len(self.files)} = (({', '.join(parameters)}) => {{", "})"
            body = f"{head}\n{body}\nreturn {{ {', '.join(self._exports[file])} }};\n{foot}({', '.join(arguments)});"
        else:
            imports = [f"const {names} = {module};" for names, module in zip(parameters, arguments, strict=True)]
            body = "\n".join([*imports, body])
        self.files.append(file)
        self._scripts.append(body)

    def _pattern(self, names: str, imported: Path) -> str:
        """Return the imported names, "a as b" too, as a pattern that takes them from an object."""
        parts = [part.split(" as ") for name in names.split(",") if (part := name.strip())]
        if missing := {part[0] for part in parts} - set(self._exports[imported]):
            raise ValueError(f"{imported.name} does not export {', '.join(sorted(missing))}")
        return "{ " + ", ".join(": ".join(part) for part in parts) + " }"
