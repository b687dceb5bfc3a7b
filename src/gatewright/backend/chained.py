"""What a gateway behind this one says of chains: a refusal that does not mean that it is down or speaks another era.

Pure: tells the error from others and turns it into one of ours. Source: `protocol.chain`.
"""

from __future__ import annotations

from gatewright.call import Failure
from gatewright.errors import BackendRefusedChain
from gatewright.protocol.refusals import CHAIN_REFUSED


def is_refusal(answer: Failure) -> bool:
    """Whether a backend refused a request for the gateways that it has passed."""
    return answer.code == CHAIN_REFUSED


def refusal(name: str, answer: Failure) -> BackendRefusedChain:
    """The error for a request of ours that the backend `name` so refused; the words stay that gateway's."""
    return BackendRefusedChain(f"{name}: {answer.message}", data=answer.data)
