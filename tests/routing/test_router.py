"""From names to targets."""

from __future__ import annotations

from typing import Any

import pytest

from gatewright.errors import InvalidParams, ResourceNotFound
from journeys.toolbox import Toolbox
from routing.places import a_call, placed

pytestmark = pytest.mark.anyio


def two() -> dict[str, Toolbox]:
    """Two backends."""
    return {"one": Toolbox("one", "modern"), "two": Toolbox("two", "modern")}


async def test_paths_are_those_of_the_backends() -> None:
    """And the one that serves all."""
    async with placed(two()) as place:
        assert [place.router.has_route(path) for path in ("", "one", "two", "three", "*", "gatewright")] == [
            True,
            True,
            True,
            False,
            False,
            False,
        ]


@pytest.mark.parametrize(
    ("method", "params", "backend", "name"),
    [
        ("tools/call", {"name": "two.echo"}, "two", "echo"),
        ("tools/call", {"name": "two.a.b"}, "two", "a.b"),
        ("prompts/get", {"name": "one.greet"}, "one", "greet"),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "one.greet"}}, "one", "greet"),
        ("tools/list", {}, "*", None),
        ("no/such", {}, "*", None),
        ("server/discover", {}, "gatewright", None),
        ("subscriptions/listen", {"notifications": {}}, "gatewright", None),
    ],
)
async def test_targets_on_the_shared_route(method: str, params: dict[str, Any], backend: str, name: str | None) -> None:
    """By prefix where names have one, else all of them or the gateway itself."""
    async with placed(two()) as place:
        target = place.router.known(a_call(method, params))
        assert target is not None
        assert (target.backend.name, target.name) == (backend, name)


@pytest.mark.parametrize(
    ("method", "params", "backend", "name"),
    [
        ("tools/call", {"name": "two.echo"}, "one", "two.echo"),
        ("resources/read", {"uri": "two://note"}, "one", "two://note"),
        ("tools/list", {}, "one", None),
        ("no/such", {}, "one", None),
        ("server/discover", {}, "gatewright", None),
    ],
)
async def test_targets_on_a_backends_own_route(
    method: str, params: dict[str, Any], backend: str, name: str | None
) -> None:
    """Everything is its own, names as they are: no name leads to another backend."""
    async with placed(two()) as place:
        target = place.router.known(a_call(method, params, route="one"))
        assert target is not None
        assert (target.backend.name, target.name) == (backend, name)


@pytest.mark.parametrize("name", ["echo", "three.echo", "one.", ".echo", "one", "One.echo", "one. ", "", "*.echo"])
async def test_names_are_never_guessed(name: str) -> None:
    """What no backend can have is refused with the form of names; a name of blanks is the backend's to refuse."""
    async with placed(two()) as place:
        if name == "one. ":
            assert place.router.known(a_call("tools/call", {"name": name})) is not None
            return
        with pytest.raises(InvalidParams, match=r"<backend>\.<tool>"):
            place.router.known(a_call("tools/call", {"name": name}))


async def test_resources_are_looked_for() -> None:
    """The router cannot know them without asking."""
    async with placed(two()) as place:
        call = a_call("resources/read", {"uri": "two://note"})
        assert place.router.known(call) is None
        target = await place.router.found(call)
        assert (target.backend.name, target.name) == ("two", "two://note")
        with pytest.raises(ResourceNotFound):
            await place.router.found(a_call("resources/read", {"uri": "three://note"}))
