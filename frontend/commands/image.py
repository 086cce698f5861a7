"""``kleak image``: kleak's programs, compiled for another machine."""

from __future__ import annotations

import click

from kleak.capture.engine.compile import compile_order
from kleak.capture.engine.headers import find_headers
from kleak.capture.engine.order import LIMIT_BYTES, Order
from kleak.capture.machine.settings import require_root
from kleak.commands.options.tracer import headers_option
from kleak.errors import UsageError
from kleak.files.input_files import read_input
from kleak.files.output_files import check_place, write_file


@click.group(epilog="Example: sudo kleak image build board.order -o board.programs")
def image() -> None:
    """Compile kleak's programs for another machine."""


@image.command(epilog="Example: sudo kleak image build board.order -o board.programs")
@click.argument("order", metavar="ORDER", type=click.Path())
@click.option("-o", "--output", metavar="FILE", required=True, help="Where the programs go.")
@headers_option
def build(order: str, output: str, kernel_headers: str | None) -> int:
    """Compile what the file ORDER asks for, as root: bcc makes maps while it compiles.

    An order has the constants of a kernel that was asked elsewhere; the machine that compiles
    may run another kernel, and be of another architecture.
    """
    check_place(output)
    try:
        wanted = Order.from_bytes(read_input(order, LIMIT_BYTES))
    except OSError as error:
        raise UsageError(f"{order}: {error.strerror}") from error
    except UsageError as error:
        raise UsageError(f"{order}: {error}") from error
    require_root()
    programs = compile_order(wanted, find_headers(kernel_headers))
    write_file(output, programs.to_bytes())
    return 0
