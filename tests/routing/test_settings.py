"""Bounds of routing."""

import pytest
from pydantic import TypeAdapter, ValidationError

from gatewright.routing.settings import Routing


@pytest.mark.parametrize("separator", [".", "__", "-", "/", "_-_"])
def test_a_separator_is_made_of_characters_names_may_have(separator: str) -> None:
    """One to three of them."""
    assert TypeAdapter(Routing).validate_python({"separator": separator}).separator == separator


@pytest.mark.parametrize("separator", ["", "::", "x", "....", ". ", ".\n"])
def test_any_other_separator_is_refused(separator: str) -> None:
    """It would make names that hosts refuse."""
    with pytest.raises(ValidationError):
        TypeAdapter(Routing).validate_python({"separator": separator})


def test_no_bound_can_be_switched_off_but_the_cache() -> None:
    """Zero cache entries is a cache that is off."""
    adapter = TypeAdapter(Routing)
    assert adapter.validate_python({"max_cache_entries": 0}).max_cache_entries == 0
    for name in ("page_size", "list_timeout_s", "max_items_per_backend"):
        for value in (0, -1, float("inf"), None):
            with pytest.raises(ValidationError):
                adapter.validate_python({name: value})
