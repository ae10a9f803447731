"""Write the list of verbs in docs/command.md: the help of the command. `make docs` runs it."""

import copy
from pathlib import Path

import click
from seequeue.command import cli

PAGE = Path(__file__).parent.parent.parent / "docs/command.md"
MARK = "<!-- The rest is made from the help of the command: make docs -->\n"
COMMON = ("url", "token", "timeout", "as_json")  # parameters of every verb, which the page lists once
HEADING = "Every verb but `serve` and `completion` also takes these options.\n"


def reference(page: str) -> str:
    """Return the page with the current help of all verbs."""
    root = click.Context(cli, info_name="seequeue", terminal_width=100, **cli.context_settings)
    common = click.Command(
        "VERB", params=[one for one in cli.commands["count"].params if one.name in COMMON], add_help_option=False
    )
    parts = [page.partition(MARK)[0] + MARK, block(root), HEADING]
    parts.append(block(click.Context(common, root, "VERB")))
    for name, command in sorted(cli.commands.items()):
        if command.add_help_option:
            shown = copy.copy(command)
            shown.params, shown.add_help_option = [one for one in command.params if one.name not in COMMON], False
            parts += [f"### `seequeue {name}`\n", block(click.Context(shown, root, name))]
    return "\n".join(parts)


def block(context: click.Context) -> str:
    """Return the help of a command as a block of text."""
    return f"```text\n{context.get_help()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(reference(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
