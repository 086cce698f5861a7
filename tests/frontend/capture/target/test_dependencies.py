"""What a module file says it depends on is named where it is not loaded."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kleak.capture.target import modules
from kleak.capture.target.modules import ModuleTarget, check_dependencies
from kleak.errors import TargetError


def target(name: str, depends: str | None, *, by_name: bool = False) -> ModuleTarget:
    information = {} if depends is None else {"depends": (depends,)}
    image: Any = SimpleNamespace(information=information)
    return ModuleTarget(name, Path(f"{name}.ko"), (), by_name, image)


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "loaded_modules", lambda: {"crc_t10dif": None})


@pytest.mark.parametrize("depends", [None, "", "crc-t10dif", "crc_t10dif"])
def test_all_is_there(depends: str | None) -> None:
    check_dependencies((target("driver", depends),))


def test_what_is_missing_is_named() -> None:
    with pytest.raises(TargetError) as raised:
        check_dependencies((target("driver", "mac80211,crc-t10dif,cfg-80211"),))
    assert str(raised.value) == (
        "driver.ko needs modules that are not loaded: mac80211, cfg_80211; "
        "load them first (modprobe -a mac80211 cfg_80211)"
    )


def test_one_target_may_be_what_the_next_needs() -> None:
    check_dependencies((target("library", ""), target("driver", "library")))
    with pytest.raises(TargetError, match=r"driver\.ko needs modules .*: library;"):
        check_dependencies((target("driver", "library"), target("library", "")))


def test_modprobe_cares_for_what_has_a_name() -> None:
    check_dependencies((target("driver", "mac80211", by_name=True),))
