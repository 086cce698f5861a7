"""``kleak completion``: what a shell needs to complete kleak's commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command(epilog='Example: eval "$(kleak completion bash)"')
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that has SHELL complete commands, options and files of kleak.

    To have it in every new shell, save it where the shell looks:

    \b
    bash  ~/.local/share/bash-completion/completions/kleak
    zsh   _kleak in a directory of $fpath
    fish  ~/.config/fish/completions/kleak.fish
    """
    maker = get_completion_class(shell)
    assert maker is not None
    click.echo(maker(context.find_root().command, {}, "kleak", "_KLEAK_COMPLETE").source())
