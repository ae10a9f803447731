"""The text of docs/api.md: the guide, with the operations, limits and error codes put in. `make docs` writes it."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

from settings import Settings
from web.errors import ERRORS, Raised
from web.input.body import BYTES, FORM, JSON, TEXT
from web.input.codec import compact
from web.input.parameters import VISIBLE_ASCII, Integer, Message, Parameter, QueueName
from web.input.raw_json import NDJSON
from web.operations.operation import Operation
from web.operations.schemas import NOTHING, SHARED, Schema
from web.operations.shared import BY, GROUPS
from web.reference.limits import LIMITS
from web.reference.openapi import GUIDE

WIDTH = 150  # characters of a line of text
PATTERNS = {
    QueueName("name").schema()["pattern"]: "queue name",
    f"^{VISIBLE_ASCII.pattern}$": "1 to 255 visible ASCII characters",
    BY.schema()["pattern"]: "1 to 64 visible ASCII characters",
}


def reference(operations: Sequence[Operation]) -> str:
    """Return the text of docs/api.md."""
    parts = {
        "index": index(operations),
        "operations": "\n".join(sections(operations)),
        "limits": table(("what", "limit", "setting", "code"), LIMITS),
        "errors": error_table(),
        "errors of any request": common_errors(),
    }
    return re.sub(r"<!-- ([a-z ]+) -->", lambda found: parts[found[1]].strip(), GUIDE)


def index(operations: Sequence[Operation]) -> str:
    """Return a table of the operations, with a link to each."""
    rows = [(heading_link(operation), operation.about[0].rstrip(".").partition(": ")[0]) for operation in operations]
    return table(("operation", ""), rows)


def sections(operations: Sequence[Operation]) -> Iterator[str]:
    """Yield the section of each group of operations."""
    for group, about in GROUPS.items():
        yield f"## {group}\n\n{about}\n"
        yield from (section(operation) for operation in operations if operation.group == group)


def section(operation: Operation) -> str:
    """Return the section of an operation."""
    parts = [
        f"### `{heading(operation)}`",
        *map(wrap, operation.about),
        parameter_table(operation.parameters),
        "Each line is a JSON object:" if operation.lines else "",
        parameter_table(operation.lines, in_lines=True),
        body_table(operation),
        "Takes an `Idempotency-Key` header." if operation.idempotent else "",
        *answer_tables(operation),
        wrap(errors_of(operation)),
        console(operation),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def heading(operation: Operation) -> str:
    return f"{operation.method} {operation.paths[0]}"


def heading_link(operation: Operation) -> str:
    """Return a link to the section of an operation, as GitHub names it."""
    anchor = re.sub(r"[^\w -]", "", heading(operation).lower()).replace(" ", "-")
    return f"[`{heading(operation)}`](#{anchor})"


def table(heads: tuple[str, ...], rows: Any) -> str:
    """Return a table, "" if it has no rows."""
    lines = ["| " + " | ".join(row) + " |" for row in (heads, *rows)]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]]).replace("|  |", "| |") if rows else ""


def wrap(text: str) -> str:
    """Return a paragraph in lines of up to WIDTH characters."""
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


# --- what an operation takes


def parameter_table(parameters: tuple[Parameter, ...], in_lines: bool = False) -> str:
    """Return a table of the parameters of an operation, or of the fields of its lines."""
    rows = []
    for parameter in parameters:
        default = "required" if parameter.required else written(parameter.default)
        kind = words(parameter.schema(), getattr(parameter, "unit", ""))
        where = (
            ""
            if parameter.in_query or in_lines
            else " In the body only."
            if parameter.in_body
            else " In the query string only."
        )
        rows.append((f"`{parameter.name}`", "1 or 0" if kind == "boolean" else kind, default, parameter.doc + where))
    return table(("field" if in_lines else "parameter", "type", "default", ""), rows)


def written(default: Any) -> str:
    """Return a default value as a table shows it."""
    if default in (None, "", ()):
        return ""
    if isinstance(default, str):
        return f"`{default}`"
    return str(int(default) if isinstance(default, bool) else default)


def words(schema: Schema, unit: str = "") -> str:
    """Return type and bounds of a schema in words."""
    if "title" in schema:
        return str(schema["title"])
    if "$ref" in schema or "anyOf" in schema:
        return "message" if "Message" in str(schema) else "object"
    if "enum" in schema:
        return " or ".join(f"`{word}`" for word in schema["enum"])
    if schema.get("pattern") in PATTERNS:
        return PATTERNS[schema["pattern"]]
    kind = schema["type"] if isinstance(schema["type"], str) else schema["type"][0]
    if kind == "array":
        bounds = f"of 1 to {schema['maxItems']:,} " if "maxItems" in schema else "of "
        return f"list {bounds}{words(schema['items'])}s"
    found = kind + (" or null" if kind != schema["type"] else "")
    if "maximum" in schema:
        low, high = schema["minimum"], schema["maximum"]
        found += f", {low:,} or more" if high == Integer.maximum else f", {low:,.12g} to {high:,.12g}"
    elif "maxLength" in schema:
        found += f", {schema.get('minLength', 0) or 'up'} to {schema['maxLength']:,} characters"
    return f"{found} {unit}".strip()


def body_table(operation: Operation) -> str:
    """Return a table of the media types of the body; "" if it can only have fields."""
    rows = []
    if operation.raw_body:
        rows += [
            (f"`{JSON}`", "An object of parameters."),
            (f"`{FORM}`", "Fields; or a JSON object, as above."),
            (f"`{TEXT}`, `{BYTES}`", "The message itself. Other parameters go in the query string."),
            (f"`{JSON}` with `?raw=1`, any `+json`", "The message itself, which must be JSON. It is not compacted."),
        ]
    if operation.streams:
        rows += [
            (f"`{NDJSON}`", "A stream of any length, one JSON value per line."),
            (f"`{TEXT}` with `?each=line`", "A stream of any length, one message per line."),
        ]
    return table(("Content-Type", "body"), rows)


# --- what it answers


def answer_tables(operation: Operation) -> Iterator[str]:
    """Yield a table of the fields of each answer."""
    listed: set[str] = set()
    for answer in operation.answers:
        if answer is not NOTHING and "properties" in answer.schema:
            yield f"Answer{answer.when and ' ' + answer.when}:"
            yield table(("field", "type", ""), [*field_rows(answer.schema, listed)])


def field_rows(schema: Schema, listed: set[str], path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield a row for each field of an object, and of the objects in its lists unless they are `listed` already."""
    for name, field in schema.get("properties", {}).items():
        if name == "success":
            continue
        listed.add(name)
        yield f"`{path}{name}`", words(field), field.get("description", "")
        inner = object_in(field.get("items", {}))
        if not inner.get("properties", {}).keys() <= listed:
            yield from field_rows(inner, listed, f"{name}[].")


def object_in(schema: Schema) -> Schema:
    """Return the object schema that a schema is, refers to, or has as an alternative; {} if there is none."""
    for option in schema.get("anyOf", [schema]):
        found = SHARED[option["$ref"].rpartition("/")[2]] if "$ref" in option else option
        if found.get("type") == "object":
            return found
    return {}


def errors_of(operation: Operation) -> str:
    """Return a sentence about the codes of an operation: those with status 200, then the errors."""
    nothing = [f"`{code}`" for code in operation.errors if ERRORS[code].status == 200]
    errors = [f"`{code}`" for code in operation.errors if ERRORS[code].status != 200]
    parts = []
    if nothing:
        codes = " or ".join(filter(None, (", ".join(nothing[:-1]), nothing[-1])))
        parts.append(f"If there is nothing to return, the status is 200, `success` false and `error` {codes}.")
    if errors:
        parts.append(f"Errors: {', '.join(errors)}.")
    return " ".join(parts)


def console(operation: Operation) -> str:
    """Return a command, and what it prints."""
    if not operation.example:
        return ""
    answer = operation.example.answer
    printed = answer if isinstance(answer, str) else compact(answer) + "\n"
    return f"```console\n$ {curl(operation)}\n{printed}```"


def curl(operation: Operation, base: str = f"localhost:{Settings.port}") -> str:
    """Return the command of an operation's example."""
    example = operation.example
    assert example
    url = base + operation.paths[0]
    options = []
    if operation.method == "GET":
        url = f"'{url}?{urlencode(example.sent, safe='*')}'" if example.sent else url
    elif operation.lines:
        options = [f"-H 'Content-Type: {NDJSON}'", f"-d '{compact(example.sent)}'"]
    elif any(isinstance(value, list) for value in example.sent.values()):
        options = [f"-H 'Content-Type: {JSON}'", f"-d '{compact(example.sent)}'"]
    else:
        texts = {field.name for field in operation.parameters if isinstance(field, Message) or field.name == "reason"}
        options = [
            f"{'--data-urlencode' if name in texts else '-d'} {shell(f'{name}={value}')}"
            for name, value in example.sent.items()
        ]
    first = "-N " if "text/event-stream" in operation.media else "-s " if example.pipe else ""
    first += "" if options or operation.method == "GET" else "-X POST "
    return " ".join([f"curl {first}{url}", *options, *(["|", example.pipe] if example.pipe else [])])


def shell(text: str) -> str:
    return text if re.fullmatch(r"[\w=.,:-]+", text) else f"'{text}'"


# --- errors


def error_table() -> str:
    rows = [(f"`{code}`", str(row.status), row.sentence, row.advice) for code, row in ERRORS.items()]
    rows.sort(key=lambda row: row[1])
    return table(("code", "status", "message", "what to do"), rows)


def common_errors() -> str:
    """Return the codes with which any request can fail, and those for any GET or any POST."""
    paragraphs = []
    for raised, start in ((Raised.ANY, ""), (Raised.GET, "A `GET` also: "), (Raised.POST, "A `POST` also: ")):
        codes = [f"`{code}`" for code, row in ERRORS.items() if row.raised is raised]
        paragraphs.append(wrap(f"{start}{', '.join(codes)}."))
    return "\n\n".join(paragraphs)
