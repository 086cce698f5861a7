"""``kleak doctor``: what this machine can do."""

from __future__ import annotations

import os
import shutil
import sys

import click

from kleak.capture.doctor import examine
from kleak.capture.kernel_state import read_kernel
from kleak.doctor import MODULE, obstacles
from kleak.errors import ExitStatus
from kleak.render.doctor_table import render_json, render_table


@click.command(
    short_help="Say what this machine can do, what that means, and what mends it.",
    epilog="Example: sudo kleak doctor",
)
@click.option("--json", is_flag=True, help="Print one JSON document instead of the table.")
@click.option(
    "--kernel-headers",
    metavar="DIR",
    help="Header tree for bcc, of any version (also KLEAK_KERNEL_HEADERS).",
)
def doctor(json: bool, kernel_headers: str | None) -> int:
    """Say what this machine can do: for each thing yes, no or degraded.

    It changes nothing. kleak's programs are attached for a moment, with nothing in scope, to see
    what the kernel accepts. Exit status: 0 if kleak module can run here, 3 if it cannot.
    """
    findings = examine(kernel_headers)
    kernel = read_kernel()
    if json:
        click.echo(render_json(kernel, findings), nl=False)
    else:
        width = shutil.get_terminal_size((100, 24)).columns
        color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        click.echo(render_table(kernel, findings, width=width, color=color), nl=False, color=True)
    return ExitStatus.UNSUPPORTED if obstacles(findings, MODULE) else ExitStatus.CLEAN
