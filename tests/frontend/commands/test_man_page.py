"""Manual pages: one a command, with what --help says, and roff that formatters accept."""

from __future__ import annotations

import re
import subprocess

import click
import pytest
from click.testing import CliRunner

from kleak.cli import COMMANDS, cli
from kleak.commands.man_page import man_page
from tests.support.tools import need

PAGES = ["kleak", *(f"kleak-{name}" for name in COMMANDS)]


def call(*arguments):
    return CliRunner().invoke(cli, arguments, prog_name="kleak", standalone_mode=False)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    directory = tmp_path_factory.mktemp("man")
    result = call("man", "--save", str(directory))
    assert result.exception is None
    return directory


def test_there_is_a_page_for_every_command_and_no_other(pages):
    assert sorted(path.name for path in pages.iterdir()) == sorted(f"{page}.1" for page in PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_an_example_and_every_option_of_the_help(pages, page):
    source = (pages / f"{page}.1").read_text()
    assert ".SH EXAMPLES\n.nf\n" in source
    help_text = call(*page.split("-")[1:], "--help").output
    options = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", help_text, re.MULTILINE))
    assert options
    for option in options:
        assert option.replace("-", r"\-") in source


def test_text_is_printed_whatever_it_begins_with():
    command = click.Command("odd", help=".hidden 'quoted' back\\slash\n\nExit status: 0 always.")
    source = man_page(click.Context(command, info_name="odd"), ["kleak"])
    assert "\n\\&.hidden \\(aqquoted\\(aq back\\eslash\n" in source
    assert "\n.SH EXIT STATUS\n0 always.\n" in source


def test_show_one_page_and_refuse_another():
    shown = call("man", "doctor").output
    assert shown.startswith(".TH KLEAK\\-DOCTOR 1 ")
    failed = call("man", "nurse")
    assert "no command nurse" in str(failed.exception)


@pytest.mark.tools
@pytest.mark.parametrize("page", PAGES)
def test_mandoc_finds_nothing_to_improve(pages, page):
    linted = subprocess.run(
        [need("mandoc"), "-Tlint", "-W", "style", str(pages / f"{page}.1")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, "")


@pytest.mark.tools
@pytest.mark.parametrize("page", PAGES)
def test_man_warns_of_nothing(pages, page):
    options = ["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-P", "cat"]
    formatted = subprocess.run(
        [need("man"), *options, str(pages / f"{page}.1")],
        capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert (formatted.returncode, formatted.stderr) == (0, "")
    assert "EXAMPLES" in re.sub(".\b", "", formatted.stdout)  # bold is a letter over itself
