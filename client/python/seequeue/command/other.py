"""serve and completion."""

from importlib.metadata import entry_points

import click
from click.shell_completion import get_completion_class

from seequeue.command.base import cli

SERVE_GROUP = "seequeue.serve"  # of the entry point of the server's distribution


@cli.command(
    add_help_option=False, context_settings={"ignore_unknown_options": True}, short_help="Serve the page and the API."
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(arguments: tuple[str, ...]) -> None:
    """Serve the page and the API, if the server is installed; `seequeue serve --help` lists its options."""
    found = list(entry_points(group=SERVE_GROUP))
    if not found:
        raise click.ClickException("The server is not installed. pip install seequeue")
    found[0].load()(list(arguments))


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script for completion in a shell.

    It completes verbs, options and the names of queues.

    \b
    eval "$(seequeue completion bash)"       # in ~/.bashrc
    eval "$(seequeue completion zsh)"        # in ~/.zshrc
    seequeue completion fish | source        # in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    assert kind
    click.echo(kind(cli, {}, "seequeue", "_SEEQUEUE_COMPLETE").source())
