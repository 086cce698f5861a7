"""What BTF says of functions, by a real kernel's."""

import pytest

from kleak.capture.witnesses.origins import BTF, read_origins
from kleak.model.session import Target
from kleak.model.witnesses import Outcome
from tests.support.samples import site, stack

LEAKY = Target("module", "leaky")


def test_functions_on_the_way_to_the_target_are_looked_up(tmp_path):
    if not BTF.exists():
        pytest.skip("this kernel has no BTF")
    frames = stack(
        "__kmalloc_noprof+1 <- rhashtable_init_noprof+1 <- leak_it+1 [leaky] <- do_one_initcall+1"
    )
    gone = site([0], frames=stack("__kmalloc_noprof+1 <- alloc_workqueue+1 <- f+1 [leaky]"))
    found = read_origins([site([1], frames=frames), gone], LEAKY)
    assert found.state.used
    [line] = found.text.splitlines()
    assert line == (
        "rhashtable_init\t-\tstruct rhashtable,struct rhashtable_params\trhashtable_destroy"
    )


def test_a_kernel_without_btf_is_no_error(tmp_path):
    found = read_origins([site([1])], LEAKY, tmp_path / "none")
    assert (found.state.outcome, found.text) == (Outcome.ABSENT, None)
    (tmp_path / "damaged").write_bytes(b"no BTF")
    assert read_origins([site([1])], LEAKY, tmp_path / "damaged").state.outcome is Outcome.ABSENT


def test_what_takes_back_an_object_takes_its_type():
    if not BTF.exists():
        pytest.skip("this kernel has no BTF")
    frames = stack("__kmalloc_noprof+1 <- device_create+1 <- f+1 [leaky]")
    text = read_origins([site([1], frames=frames)], LEAKY).text
    name, returns, _, undo = text.strip().split("\t")
    assert (name, returns) == ("device_create", "struct device")
    assert undo != "device_destroy"  # that takes the class of the device, and its number
