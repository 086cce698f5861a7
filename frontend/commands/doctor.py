"""``kleak doctor``: what this machine can do."""

from __future__ import annotations

import sys

import click

from kleak.capture.machine.doctor import examine
from kleak.capture.machine.kernel_state import read_kernel
from kleak.commands.options.tracer import headers_option
from kleak.errors import ExitStatus
from kleak.model.doctor import MODULE, obstacles
from kleak.render.doctor_table import render_json, render_table
from kleak.terminal import text_width, wants_color


@click.command(
    epilog="Example: sudo kleak doctor",
)
@click.option("--json", is_flag=True, help="Print one JSON document instead of the table.")
@headers_option
def doctor(json: bool, kernel_headers: str | None) -> int:
    """Say what this machine can do: for each thing yes, no or degraded.

    It changes nothing. kleak's programs are attached for a moment, with nothing in scope, to see
    what the kernel accepts. Exit status: 0 if kleak module can run here, 3 if it cannot.
    """
    checks = examine(kernel_headers)
    kernel = read_kernel()
    if json:
        click.echo(render_json(kernel, checks), nl=False)
    else:
        color = wants_color(sys.stdout)
        shown = render_table(kernel, checks, width=text_width(), color=color)
        click.echo(shown, nl=False, color=color)
    return ExitStatus.UNSUPPORTED if obstacles(checks, MODULE) else ExitStatus.CLEAN
