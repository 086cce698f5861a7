"""LeakSanitizer's rules, over the functions, modules and files of a site."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kleak.analysis.judge import judge
from kleak.analysis.suppressions import apply, parse
from kleak.errors import UsageError
from kleak.model.report import Excuse, Parent
from tests.support.samples import KERNFS, LEAK, session, site, stack


def excused(rules: str, frames=LEAK) -> bool:
    report = judge(session(site([3] * 5, frames=frames)))
    (found,) = apply(report, parse(rules, "file.supp")).sites
    return found.excuse is not None


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ("leak:leak_it", True),
        ("leak:eak_i", True),
        ("leak:leak_it2", False),
        ("leak:^leak_it", True),
        ("leak:^eak_it", False),
        ("leak:leak_it$", True),
        ("leak:leak_i$", False),
        ("leak:^leak_it$", True),
        ("leak:^leak_i$", False),
        ("leak:l*_it", True),
        ("leak:^l*t$", True),
        ("leak:^l*_x$", False),
        ("leak:*leak_it*", True),
        ("leak:^leaky$", True),  # the module
        ("leak:leaky.c", True),  # the file
        ("leak:leak.it", False),  # a dot is a dot
        ("leak:do_init_module", True),  # any frame
        ("leak:__kmalloc_cache", True),  # the allocator's too
        ("leak:^__kmalloc_cache$", True),  # without _noprof
        ("leak:LEAK_IT", False),
    ],
)
def test_patterns(rule, matches):
    assert excused(rule) is matches


def test_suffixes_of_the_compiler_are_not_needed():
    frames = stack("__kmalloc+0x1 <- leak_it.constprop.0+0x1c [leaky]")
    assert excused("leak:^leak_it$", frames)
    assert excused("leak:^leak_it.constprop.0$", frames)


def test_comments_blank_lines_and_blanks_around():
    rules = parse("# a comment\n\n  \t# another\n  leak:one  \nleak:two\r\n", "f")
    assert [(rule.line, rule.pattern) for rule in rules] == [(4, "one"), (5, "two")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("leak:a\nleek:b\n", "f.supp:2: no rule: 'leek:b' (leak:PATTERN is expected)"),
        ("race:x", "f.supp:1: no rule: 'race:x' (leak:PATTERN is expected)"),
        ("\nleak_it", "f.supp:2: no rule: 'leak_it' (leak:PATTERN is expected)"),
        ("leak:", "f.supp:1: leak: would suppress everything"),
        ("leak:^*$", "f.supp:1: leak:^*$ would suppress everything"),
        ("leak:a$b", "f.supp:1: leak:a$b: ^ stands in front and $ at the end only"),
    ],
)
def test_a_line_that_is_no_rule(text, says):
    with pytest.raises(UsageError) as caught:
        parse(text, "f.supp")
    assert str(caught.value) == says


def test_uses_are_counted_for_the_first_rule_that_matches():
    report = judge(session(site([3] * 5), site([2] * 5, frames=KERNFS, object_bytes=100)))
    rules = parse("leak:never\nleak:leak_it\nleak:leaky\n", "a") + parse("leak:leak_it\n", "b")
    marked = apply(report, rules)
    uses = [(use.file, use.line, use.sites, use.outstanding.count) for use in marked.suppressions]
    assert uses == [("a", 1, 0, 0), ("a", 2, 1, 15), ("a", 3, 1, 10), ("b", 1, 0, 0)]
    assert [use.outstanding.size_bytes for use in marked.suppressions] == [0, 1920, 1000, 0]
    assert [found.excuse.by for found in marked.sites] == ["suppression"] * 2


@pytest.mark.parametrize(("by", "goes_along"), [("pointers", True), ("time", False)])
def test_what_an_excused_site_points_to_goes_with_it(by, goes_along):
    report = judge(session(site([3] * 5), site([2] * 5, frames=KERNFS)))
    first, second = report.sites
    second = replace(second, parent=Parent(first.rank, by, "said"))
    marked = apply(replace(report, sites=(first, second)), parse("leak:leak_it", "a"))
    assert marked.sites[0].excuse == Excuse("suppression", "suppressed by a:1: leak:leak_it")
    assert (marked.sites[1].excuse is not None) is goes_along


@pytest.mark.parametrize("tied", ["", "^", "$", "^$"])
def test_many_stars_take_no_time(tied):
    """As a regular expression 18 of them did not end within a minute."""
    pattern = "^" * ("^" in tied) + "*a" * 40 + "*b" + "$" * ("$" in tied)
    (rule,) = parse(f"leak:{pattern}", "f")
    began = time.process_time()
    assert not rule.matches("a" * 5000)
    assert rule.matches("a" * 5000 + "b")
    assert time.process_time() - began < 1


@given(
    st.text("ab", max_size=9),
    st.text("ab*", min_size=1, max_size=6).filter(lambda text: text.strip("*")),
    st.booleans(),
    st.booleans(),
)
def test_stars_match_as_an_expression_does(text, inner, start, end):
    (rule,) = parse(f"leak:{'^' * start}{inner}{'$' * end}", "f")
    expression = ("^" if start else "") + inner.replace("*", ".*") + (r"\Z" if end else "")
    assert rule.matches(text) == bool(re.search(expression, text))
