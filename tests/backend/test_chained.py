"""What a gateway behind this one says of chains."""

from __future__ import annotations

from gatewright.backend import chained
from gatewright.call import Failure
from gatewright.errors import ChainRefused
from gatewright.protocol import jsonrpc, refusals


def test_a_refused_chain_is_told_from_other_errors_and_keeps_its_words() -> None:
    """Over any number of gateways: each adds which of its backends said so, none its own reading of it."""
    answer = refusals.failure(ChainRefused("Gateways in a circle (a > b > a)", data={"gateways": ["a", "b", "a"]}))
    for name in ("b", "a"):
        assert chained.is_refusal(answer)
        answer = refusals.failure(chained.refusal(name, answer))
    assert answer.code == -31005
    assert answer.message == "a: b: Gateways in a circle (a > b > a)"
    assert answer.data is not None
    assert jsonrpc.members(answer.data).keys() == {"gateways"}
    assert not chained.is_refusal(Failure(-32602, "no"))
