"""Addresses of a module at several places, also after it is gone."""

import pytest

from kleak.model.session import Frame
from kleak.parsers.proc_modules import parse_modules
from kleak.symbols.kernel_table import KernelTable
from kleak.symbols.module_image import ModuleImage
from kleak.symbols.symboliser import ModuleLoad, Symboliser
from tests.support.paths import TESTS

DATA = TESTS / "data"
FIRST, SECOND = 0xFFFFFFFFC1230000, 0xFFFFFFFFC4560000
FIRST_INIT, SECOND_INIT = 0xFFFFFFFFC1240000, 0xFFFFFFFFC1230000  # the old place, re-used
NAME = "6.12--module-loaded.txt"


@pytest.fixture(scope="session")
def table():
    return KernelTable(
        (DATA / "kallsyms" / NAME).read_bytes(),
        parse_modules((DATA / "proc_modules" / NAME).read_text()),
    )


@pytest.fixture(scope="session")
def image(module_path):
    return ModuleImage(module_path)


@pytest.fixture
def symboliser(image, table):
    sizes = {"text_size": 4096, "init_size": 4096}
    return Symboliser(
        table,
        [
            ModuleLoad(image, text_base=FIRST, init_base=FIRST_INIT, epoch=1, **sizes),
            ModuleLoad(image, text_base=SECOND, init_base=SECOND_INIT, epoch=2, **sizes),
        ],
    )


def offset_of(image, name):
    """Region and offset of a function."""
    (symbol,) = [s for s in image.symbols if s.name == name]
    (section,) = [s for s in image.text_sections if s.index == symbol.section]
    return section.region, section.offset + symbol.value


def test_one_frame_at_every_place(symboliser, image):
    for name, region in (("plain", "core"), ("unlikely_text", "core"), ("init_helper", "init")):
        found, offset = offset_of(image, name)
        assert found == region
        bases = (FIRST, SECOND) if region == "core" else (FIRST_INIT, SECOND_INIT)
        one = symboliser.resolve(bases[0] + offset + 9, 1)
        two = symboliser.resolve(bases[1] + offset + 9, 2)
        assert one == two == Frame("sections", name, 9)
        assert one.source is not None
        assert one.source.file == "entry.c"


def test_the_epoch_decides_what_an_address_is(symboliser, image):
    _, plain = offset_of(image, "plain")
    _, helper = offset_of(image, "init_helper")
    assert symboliser.resolve(FIRST + plain + 3, 1).symbol == "plain"
    assert symboliser.resolve(SECOND_INIT + helper + 3, 2).symbol == "init_helper"
    address = SECOND + plain + 3
    assert symboliser.resolve(address, 1) == Frame(None, None, address)
    assert symboliser.resolve(address, 3) == Frame(None, None, address)


def test_other_addresses_go_to_the_table(symboliser, table):
    for address in (table.text.start + 5, 0xFFFFFFFFC07A2011):
        assert symboliser.resolve(address, 1) == table.resolve(address)
        assert symboliser.resolve(address, 1).symbol is not None


def test_in_the_module_but_in_no_function(symboliser, image):
    size = image.text_size("core")
    core = symboliser.resolve(FIRST + 4000, 1)
    assert core == Frame("sections", None, 4000)
    assert symboliser.resolve(FIRST_INIT + 4000, 1) == Frame("sections", None, size + 4000)
    assert symboliser.resolve(FIRST, 1).module is None  # no instruction comes before the first
    assert symboliser.resolve(FIRST + 4096, 1).module == "sections"
    assert symboliser.resolve(FIRST + 4097, 1).module is None


def test_a_load_added_later_counts(symboliser, image):
    _, plain = offset_of(image, "plain")
    address = FIRST + plain + 3
    assert symboliser.resolve(address, 7).symbol is None
    symboliser.add(ModuleLoad(image, FIRST, 4096, 0, 0, epoch=7))
    assert symboliser.resolve(address, 7).symbol == "plain"
    assert symboliser.resolve(1, 7) == Frame(None, None, 1)  # no init region at address 0


def test_a_load_is_there_in_all_epochs_up_to_its_last(symboliser, image):
    _, plain = offset_of(image, "plain")
    address = FIRST + plain + 3
    assert symboliser.resolve(address, 8).symbol is None
    symboliser.add(ModuleLoad(image, FIRST, 4096, 0, 0, epoch=7, last_epoch=9))
    found = [symboliser.resolve(address, epoch).symbol for epoch in (6, 7, 8, 9, 10)]
    assert found == [None, "plain", "plain", "plain", None]


def test_a_load_in_place_of_the_init_text_of_another(symboliser, image):
    _, helper = offset_of(image, "init_helper")
    _, plain = offset_of(image, "plain")
    place, later = 0xFFFFFFFFC2000000, 0xFFFFFFFFC3000000
    symboliser.add(ModuleLoad(image, FIRST, 4096, place, 4096, epoch=11, last_epoch=12))
    assert symboliser.resolve(place + helper + 3, 11).symbol == "init_helper"
    symboliser.add(ModuleLoad(image, place, 4096, later, 4096, epoch=12))
    assert symboliser.resolve(place + plain + 3, 12).symbol == "plain"
    assert symboliser.resolve(place + helper + 3, 11).symbol == "init_helper"


def test_a_file_of_another_build_does_not_fit(image):
    core, init = image.text_size("core"), image.text_size("init")
    assert ModuleLoad(image, FIRST, core, FIRST_INIT, init, 1).fits
    assert not ModuleLoad(image, FIRST, core - 1, FIRST_INIT, init, 1).fits
    assert not ModuleLoad(image, FIRST, core, FIRST_INIT, init - 1, 1).fits
