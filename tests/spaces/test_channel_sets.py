from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kneepoint.spaces.channel_sets import ChannelSets, Run, Runs


def layout(sets: ChannelSets, runs: Runs) -> list[tuple[str | None, int, int]]:
    """(name of the group or None, channels, repeat) of every part of an axis."""
    names = sets.names()
    return [(names.get(run.set), run.channels, run.repeat) for run in sets.resolve(runs)]


def test_united_axes_carry_the_name_of_the_first() -> None:
    sets = ChannelSets()
    a, b, c = (sets.new(name, 8) for name in "abc")
    sets.unite(b, c, "")
    sets.unite(c, a, "")
    assert layout(sets, b) == layout(sets, c) == [("a", 8, 1)]


def test_an_axis_that_is_divided_varies_in_parts() -> None:
    sets = ChannelSets()
    whole = sets.new("a", 8)
    left, right = sets.divide(whole, 3, "")
    assert layout(sets, left) == [("a[0]", 3, 1)]
    assert layout(sets, right) == [("a[1]", 5, 1)]
    assert layout(sets, whole) == [("a[0]", 3, 1), ("a[1]", 5, 1)]
    assert sets.divide(whole, 0, "") == ((), sets.resolve(whole))
    assert sets.divide(whole, 8, "") == (sets.resolve(whole), ())


def test_halves_that_are_united_are_one_group_again() -> None:
    sets = ChannelSets()
    whole = sets.new("a", 8)
    sets.unite(*sets.divide(whole, 4, ""), "")
    assert layout(sets, whole) == [("a", 4, 1), ("a", 4, 1)]


def test_a_cut_through_a_channel_fixes_it() -> None:
    sets = ChannelSets()
    a = sets.new("a", 4)
    wide = (Run(a[0].set, 4, repeat=3),)
    left, right = sets.divide(wide, 4, "cut")
    assert [run.elements for run in (*left, *right)] == [4, 8]
    assert sets.why_fixed(sets.resolve(a)[0]) == "cut"


def test_axes_in_other_parts_are_cut_until_they_match() -> None:
    sets = ChannelSets()
    a, b, c = sets.new("a", 4), sets.new("b", 6), sets.new("c", 10)
    sets.unite((*a, *b), c, "")
    assert layout(sets, c) == [("a", 4, 1), ("b", 6, 1)]


def test_axes_in_blocks_of_different_size_share_the_least_common_one() -> None:
    sets = ChannelSets()
    a, b = sets.new("a", 12), sets.new("b", 12)
    sets.coarsen(a, 2, "")
    sets.coarsen(b, 3, "")
    sets.unite(a, b, "")
    assert layout(sets, a) == layout(sets, b) == [("a", 2, 6)]


def test_axes_that_cannot_match_freeze() -> None:
    sets = ChannelSets()
    a, b = sets.new("a", 3), sets.new("b", 2)
    sets.unite((Run(a[0].set, 3, 2),), (Run(b[0].set, 2, 3),), "apart")
    assert layout(sets, a) == [("a", 1, 3)] or sets.names() == {}
    assert {sets.why_fixed(run) for run in (*sets.resolve(a), *sets.resolve(b))} == {"apart"}


def test_a_fixed_part_fixes_only_what_it_meets() -> None:
    sets = ChannelSets()
    a = sets.new("a", 10)
    sets.unite(a, (*sets.constant(4, "padding"), *sets.new("b", 6)), "")
    assert layout(sets, a) == [(None, 4, 1), ("a", 6, 1)]


def test_blocks_that_belong_to_several_sets_are_fixed() -> None:
    sets = ChannelSets()
    a, b, c = sets.new("a", 6), sets.new("b", 4), sets.new("c", 10)
    sets.coarsen((*a, *b, *c), 5, "mixed")
    assert [sets.why_fixed(sets.resolve(runs)[0]) for runs in (a, b, c)] == ["mixed", "mixed", ""]
    assert layout(sets, c) == [("c", 2, 5)]


def test_one_block_alone_is_fixed_with_its_reason() -> None:
    sets = ChannelSets()
    a = sets.new("a", 6)
    sets.coarsen(a, 6, "one mean")
    assert sets.why_fixed(sets.resolve(a)[0]) == "one mean"


def test_scaling_keeps_blocks_and_fixed_parts_in_proportion() -> None:
    sets = ChannelSets()
    a = (*sets.constant(4, "fixed"), *sets.new("a", 8))
    scaled = sets.scale(a, 2, 3, "")
    assert layout(sets, scaled) == [(None, 6, 1), ("a", 4, 3)]
    assert sum(run.elements for run in scaled) == 18


@given(st.lists(st.tuples(st.sampled_from("udc"), st.integers(0, 5), st.integers(0, 5), st.integers(1, 11))))
def test_whatever_happens_axes_keep_their_lengths_and_names_are_unique(
    steps: list[tuple[str, int, int, int]],
) -> None:
    sets = ChannelSets()
    axes = [sets.new(str(index), 12) for index in range(6)]
    for what, first, second, number in steps:
        if what == "u":
            sets.unite(axes[first], axes[second], "apart")
        elif what == "d":
            left, right = sets.divide(axes[first], number, "cut")
            axes[first] = (*right, *left)
        else:
            sets.coarsen(axes[first], number, "block")
    for axis in axes:
        assert sum(run.elements for run in sets.resolve(axis)) == 12
    sizes = {item: sets.width(item) for item in sets.names()}
    assert len(set(sets.names().values())) == len(sizes)
    assert all(sizes[run.set] == run.channels for axis in axes for run in sets.resolve(axis) if run.set in sizes)
