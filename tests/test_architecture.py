"""The shape of the repository: import direction, sizes, state, tasks, eras, tests beside modules, the request path.

The rules are in `architecture/rules.py`. What may break one stands here, by name and with its reason, and has to go
when it no longer does.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping

import pytest

from architecture import rules
from architecture.modules import PACKAGE, ROOT, SOURCE, Module, code_lines, read
from architecture.path import Step, documented

MAX_SOURCE_LINES = 500
MAX_TEST_LINES = 800
MAX_SCRIPT_LINES = 15
MAX_STEPS = 12

MODULES = read(SOURCE, PACKAGE)
TESTS = read(ROOT / "tests")
PROGRAMS = [*read(ROOT / "bench"), *read(ROOT / "fuzz")]

BROAD_EXCEPTS = {
    "cli.supervisor": "the outermost edge of a worker process: a bug ends it, and the supervisor says so",
    "inbound.http": "the outermost edge: a bug ends one request, not the process",
    "inbound.elsewhere": "a look-up that several wait for: whatever went wrong is raised at each of them",
    "outbox": "where messages of many leave together: one that cannot be sent does not keep back the others",
    "background": "where work beside calls starts: a bug ends that work, not the gateway",
    "inbound.stdio": "the edge of a host: a bug ends one message, and is logged under an id",
    "inbound.base": "the edge of a call: a bug ends that call, and is logged under an id",
    "backend.pipe": "a bug in a sink costs one notice, not everything that follows it on a shared wire",
    "stores.post": "the edge to other replicas: a bug in hearing one letter costs that letter, not all that follow",
    "backend.python": "the edge to server code that is not ours and may raise anything",
}
"""Who may catch everything (STYLE: only an edge; each failure gets an id or a reason)."""

ERA_BRANCHES = {
    "backend.backend": "chooses which of a backend's two faces a call goes to: the one switch outside protocol",
    "demo_servers.server": "a server in its own right, with both eras in one file",
}
"""Who may branch on an era outside `protocol`."""

UNTESTED = {
    "backend.base": "types only",
    "call": "types only",
    "errors": "a tree of classes; which answer each becomes is tested with protocol.refusals",
}
"""Modules without a test file of their own."""

Rule = Callable[[Module], Iterator[str]]


def broken(rule: Rule, modules: list[Module], *, may: Mapping[str, str] | None = None) -> list[str]:
    """Everything that breaks a rule; also an exception that nothing needs any more."""
    may = may or {}
    found = {module.name: list(rule(module)) for module in modules}
    unused = [f"{name} no longer needs its exception: {reason}" for name, reason in may.items() if not found.get(name)]
    return [one for name, findings in found.items() if name not in may for one in findings] + unused


def show(findings: list[str]) -> str:
    """The findings, one per line."""
    return "\n" + "\n".join(findings)


def test_the_source_is_found() -> None:
    """A rule over no files would hold."""
    assert {"app", "call", "backend.http", "protocol.sse"} <= {module.name for module in MODULES}
    assert "test_architecture" in {module.name for module in TESTS}


@pytest.mark.parametrize(
    "rule",
    [
        rules.import_direction,
        rules.function_size,
        rules.module_state,
        rules.class_state,
        rules.late_imports,
        rules.loose_tasks,
        rules.bare_package,
        rules.opens_with_contract,
    ],
    ids=lambda rule: rule.__name__,
)
def test_the_source_keeps(rule: Rule) -> None:
    """Rules without exceptions."""
    assert not (found := broken(rule, MODULES)), show(found)


@pytest.mark.parametrize("rule", [rules.function_size, rules.opens_with_contract], ids=lambda rule: rule.__name__)
def test_tests_and_tools_keep(rule: Rule) -> None:
    """Code that is not shipped is read as often."""
    files = [module for module in [*TESTS, *PROGRAMS] if module.path.name != "__init__.py"]
    assert not (found := broken(rule, files)), show(found)


def test_only_edges_catch_everything() -> None:
    """Elsewhere a bug must not become a log line."""
    assert not (found := broken(rules.broad_excepts, MODULES, may=BROAD_EXCEPTS)), show(found)


def test_no_era_branches_outside_protocol() -> None:
    """Which era it is, is decided once."""
    outside = [module for module in MODULES if module.folder != "protocol"]
    assert not (found := broken(rules.era_branches, outside, may=ERA_BRANCHES)), show(found)


def test_protocol_is_sans_io() -> None:
    """Its tests need no socket and no clock, so neither may the code."""
    protocol = [module for module in MODULES if module.folder == "protocol"]
    assert protocol
    assert not (found := broken(rules.sans_io, protocol)), show(found)


def test_modules_import_each_other_in_no_circle() -> None:
    """Within a folder too, leaving annotations aside: import order is not behaviour."""
    needs = {
        f"{PACKAGE}.{module.name}": {one.target for one in module.imports if not one.is_for_typing}
        for module in MODULES
        if module.path.name != "__init__.py"
    }
    free: set[str] = set()
    while ready := {
        name for name, targets in needs.items() if name not in free and not (targets & needs.keys()) - free
    }:
        free |= ready
    assert not needs.keys() - free, f"in or behind a circle: {sorted(needs.keys() - free)}"


@pytest.mark.parametrize(
    ("modules", "limit"),
    [(MODULES, MAX_SOURCE_LINES), (TESTS, MAX_TEST_LINES), (PROGRAMS, MAX_TEST_LINES)],
    ids=["src", "tests", "bench and fuzz"],
)
def test_files_are_short(modules: list[Module], limit: int) -> None:
    """A file is split by noun before it reaches its limit."""
    found = [module.at(1, f"{lines} lines") for module in modules if (lines := module.text.count("\n")) > limit]
    assert not found, show(found)


def test_scripts_are_short() -> None:
    """A script says what to run; logic is in Python, with tests."""
    scripts = [path for path in (ROOT / "scripts").iterdir() if path.is_file()]
    assert {"install", "check", "test", "bench", "fuzz"} <= {path.name for path in scripts}
    found = [str(path) for path in scripts if path.read_text().count("\n") >= MAX_SCRIPT_LINES]
    assert not found, show(found)


def test_every_module_has_its_tests() -> None:
    """`src/gatewright/a/b.py` is tested by `tests/a/test_b.py`."""
    tests = {module.name for module in TESTS}
    found = []
    for module in MODULES:
        if module.path.name == "__init__.py":
            continue
        folder, _, last = module.name.rpartition(".")
        mirror = f"{folder}.test_{last}".lstrip(".")
        has_tests = mirror in tests
        if has_tests == (module.name in UNTESTED):
            advice = "take it from UNTESTED" if has_tests else f"needs tests/{mirror.replace('.', '/')}.py"
            found.append(module.at(1, advice))
    assert not found, show(found)


def test_exceptions_name_modules_that_exist() -> None:
    """A module that moved takes its exceptions along."""
    names = {module.name for module in MODULES}
    assert names >= {*BROAD_EXCEPTS, *ERA_BRANCHES, *UNTESTED}


DOCUMENT = ROOT / "docs" / "architecture.md"


def test_every_folder_is_documented() -> None:
    """docs/architecture.md says what each holds, and names none that is gone."""
    listed = set(re.findall(r"^\| `(\w+)/` \|", DOCUMENT.read_text(), re.MULTILINE))
    assert listed == {module.folder for module in MODULES if "." in module.name}


# The request path: docs/architecture.md names its steps in a table.

STEPS = documented(DOCUMENT)


def test_the_request_path_is_short() -> None:
    """At most twelve steps from the client's socket to the backend's."""
    assert 0 < len(STEPS) <= MAX_STEPS
    assert [step.number for step in STEPS] == list(range(1, len(STEPS) + 1))


@pytest.mark.parametrize("step", STEPS, ids=lambda step: str(step.number))
def test_a_documented_step_exists(step: Step) -> None:
    """It, and what stands in its place in the other era or over another transport."""
    for place in step.places:
        assert place.node(MODULES) is not None, f"{place} is in docs/architecture.md and not in the source"


@pytest.mark.parametrize("step", STEPS[:-1], ids=lambda step: str(step.number))
def test_a_documented_step_calls_the_next(step: Step) -> None:
    """Its source holds a call that the table shows, under the name of what comes next, or gives it to `answer`, which
    makes it."""
    following = STEPS[step.number].places
    is_stack = following[0].module.startswith("policy.")  # composed: each policy is called as what proceeds
    names = {"handle", "proceed"} if is_stack else {verb for place in following for verb in place.verbs(MODULES)}
    if "__call__" in names:
        names.add(following[0].module.rpartition(".")[2])  # an object called by what it is: `backend(call)`
    for place in step.places:
        node = place.node(MODULES)
        assert node is not None
        calls = [one for one in ast.walk(node) if isinstance(one, ast.Call)]
        given = [each for one in calls if ast.unparse(one.func).endswith(".answer") for each in one.args]
        made = step.calls & {ast.unparse(each) for each in [*(one.func for one in calls), *given]}
        assert made, f"{place} makes none of the calls {sorted(step.calls)}"
        for call in made:
            assert call.rpartition(".")[2].lstrip("_") in names, f"{place} calls {call}, which is not the next step"


def test_the_documented_policies_are_the_stack() -> None:
    """In the order in which `app.py` composes them, ending in dispatch."""
    app = next(module for module in MODULES if module.name == "app")
    stacks = [
        node for node in ast.walk(app.tree) if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("compose")
    ]
    assert len(stacks) == 1
    policies, last = stacks[0].args
    assert isinstance(policies, ast.List), "the stack is one literal, in execution order"
    composed = [ast.unparse(one.func) for one in policies.elts if isinstance(one, ast.Call)]
    assert len(composed) == len(policies.elts)
    in_policy = [step.places[0] for step in STEPS if step.places[0].module.startswith("policy.")]
    assert [place.qualname.partition(".")[0] for place in in_policy] == [*composed, ast.unparse(last)]


def test_every_policy_says_why_it_stands_there() -> None:
    """The stack's literal has a reason per line."""
    app = next(module for module in MODULES if module.name == "app")
    source = app.text.splitlines()
    stack = next(
        node for node in ast.walk(app.tree) if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("compose")
    )
    policies = stack.args[0]
    assert isinstance(policies, ast.List)
    assert code_lines(app.text) >= {one.lineno for one in policies.elts}
    for one in policies.elts:
        assert re.search(r"#\s*\S+", source[(one.end_lineno or one.lineno) - 1]), f"no reason: {ast.unparse(one)}"
