"""The text is what Prometheus reads: shown with the parser of its own client library."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewright.telemetry.exposition import CONTENT_TYPE, render
from gatewright.telemetry.families import Family, counted, counted_by, measured_by

parser = pytest.importorskip("prometheus_client.parser", reason="prometheus-client reads what is written here")


def read(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_the_whole_text() -> None:
    """Letter by letter."""
    took = Family("took_seconds", "histogram", "How long.", ("method",), {("call",): [1, 0, 2, 3.5]}, (0.1, 1.0))
    assert render([counted("a_total", "Some.", 7), measured_by("b", "Others.", "kind", {"x": 1.5}), took]) == (
        b"# HELP a_total Some.\n# TYPE a_total counter\na_total 7\n"
        b'# HELP b Others.\n# TYPE b gauge\nb{kind="x"} 1.5\n'
        b"# HELP took_seconds How long.\n# TYPE took_seconds histogram\n"
        b'took_seconds_bucket{method="call",le="0.1"} 1\n'
        b'took_seconds_bucket{method="call",le="1"} 1\n'
        b'took_seconds_bucket{method="call",le="+Inf"} 3\n'
        b'took_seconds_sum{method="call"} 3.5\ntook_seconds_count{method="call"} 3\n'
    )
    assert "version=0.0.4" in CONTENT_TYPE


def test_a_histogram_without_labels_is_one_too() -> None:
    """No comma too many."""
    found = read(render([Family("took", "histogram", "", (), {(): [1, 2, 0.5]}, (0.1,))]))
    assert found["took_bucket", frozenset({("le", "0.1")})] == 1
    assert found["took_bucket", frozenset({("le", "+Inf")})] == 3
    assert found["took_sum", frozenset()] == 0.5


def test_a_family_without_samples_is_named() -> None:
    """So that a dashboard finds it before anything happened."""
    (family,) = parser.text_string_to_metric_families(render([counted_by("a_total", "Some.", "verb", {})]).decode())
    assert (family.name, family.type, family.documentation, family.samples) == ("a", "counter", "Some.", [])


@given(st.text(), st.floats(allow_nan=False))
def test_any_label_and_number_reads_back(label: str, value: float) -> None:
    """Quotes, backslashes and line ends do not break out of a label, infinite and tiny numbers stay what they are."""
    found = read(render([measured_by("b", 'back\\slash and "quotes"\nand a line', "kind", {label: value})]))
    ((name, labels), number) = next(iter(found.items()))
    assert name == "b"
    assert dict(labels) == {"kind": label}
    assert number == value or (math.isinf(value) and math.isinf(number))
