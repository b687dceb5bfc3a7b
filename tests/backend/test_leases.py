"""Leases: the lowest free number for each, and nothing kept behind the last."""

from hypothesis import given
from hypothesis import strategies as st

from gatewright.backend.leases import Leases


def test_the_lowest_free_number_is_taken() -> None:
    """A number that came back is taken again before a new one is made, and keys do not share theirs."""
    leases = Leases()
    assert [leases.take("a"), leases.take("a"), leases.take("a")] == [1, 2, 3]
    assert leases.take("b") == 1
    leases.give_back("a", 3)
    leases.give_back("a", 1)
    assert [leases.take("a"), leases.take("a"), leases.take("a")] == [1, 3, 4]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(min_value=0, max_value=9)), max_size=60))
def test_no_number_is_held_twice_and_nothing_is_left(steps: list[tuple[str, int]]) -> None:
    """Whatever the order of taking and giving back: each holder has a number of its own, and the end is empty."""
    leases = Leases()
    held: dict[str, list[int]] = {"a": [], "b": []}
    for key, choice in steps:
        mine = held[key]
        if choice < 5 or not mine:
            number = leases.take(key)
            assert number == min(set(range(1, len(mine) + 2)) - set(mine))
            mine.append(number)
        else:
            leases.give_back(key, mine.pop(choice % len(mine)))
    for key, mine in held.items():
        for number in mine:
            leases.give_back(key, number)
    assert len(leases) == 0
