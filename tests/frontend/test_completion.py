"""Completion, in the shells themselves: keys are pressed, and the command that results is run."""

from __future__ import annotations

import pytest

from kleak.cli import COMMANDS
from kleak.commands.completion import SHELLS
from tests.support.shells import interactive
from tests.support.tools import need

pytestmark = pytest.mark.tools

START = {
    "bash": (["bash", "--norc", "-i"], 'eval "$(kleak completion bash)"'),
    "zsh": (
        ["zsh", "-f", "-i"],
        'autoload -Uz compinit; compinit -u -D; eval "$(kleak completion zsh)"',
    ),
    "fish": (["fish", "--no-config", "-i"], "kleak completion fish | source"),
}


@pytest.mark.parametrize("name", SHELLS)
def test_a_shell_completes_commands_arguments_and_files(name, tmp_path):
    need(name)
    argv, load = START[name]
    (tmp_path / "an-odd-name.kleak").write_text("nothing")
    with interactive(argv, tmp_path) as shell:
        shell.type(f"{load}; cd {tmp_path}; echo rea''dy\n")
        shell.wait_for("ready\r\n")
        shell.type("kleak expl\t")
        shell.wait_for("explain ")
        shell.type("memin\t")
        shell.wait_for("meminfo")
        shell.type("\n")
        shell.wait_for("needs: nothing; everybody may read it")
        shell.type("kleak report an-o\t")
        shell.wait_for("an-odd-name.kleak")
        shell.type("\n")
        shell.wait_for("an-odd-name.kleak is no kleak session")


def test_bash_offers_every_command(tmp_path):
    with interactive(START["bash"][0], tmp_path) as shell:
        shell.type(f"{START['bash'][1]}; echo rea''dy\n")
        shell.wait_for("ready\r\n")
        shell.type("kleak \t\t")
        offered = shell.wait_for("\r\n> kleak ")
    assert set(COMMANDS) == set(offered.replace("\a", "").split()) - {">", "kleak"}
