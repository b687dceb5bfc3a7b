"""A Secret masks itself everywhere but in `reveal`."""

import copy
import json
import pickle

import pytest
from pydantic import TypeAdapter, ValidationError

from gatewright.secret import MASK, Secret

CANARY = "c4nary"


def test_a_secret_is_masked_wherever_it_is_shown() -> None:
    """repr, str, formatting, containers, dumps."""
    secret = Secret(CANARY)
    adapter = TypeAdapter(dict[str, Secret])
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>20}", repr({"a": [secret]})]
    shown += [json.dumps(secret, default=str), repr(adapter.dump_python({"a": secret}))]
    shown.append(adapter.dump_json({"a": secret}).decode())
    assert all(CANARY not in text and MASK in text for text in shown)
    assert secret.reveal() == CANARY


def test_secrets_are_equal_by_text_and_equal_to_nothing_else() -> None:
    """Comparing with a plain text by accident is never true."""
    assert Secret("a") == Secret("a")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert Secret("é") == Secret("é")
    assert not Secret("")
    assert Secret("a")


def test_a_secret_cannot_be_changed_or_pickled() -> None:
    """A pickle would hold the text unmasked; a copy is the same object."""
    secret = Secret(CANARY)
    with pytest.raises(AttributeError):
        secret._text = "other"
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(secret)
    assert copy.copy(secret) is secret
    assert copy.deepcopy(secret) is secret


def test_configuration_makes_secrets_of_texts_only() -> None:
    """Anything else is refused as text would be; the schema says that it is only written."""
    adapter = TypeAdapter(Secret)
    assert adapter.validate_python("x") == Secret("x")
    assert adapter.validate_python(Secret("x")) == Secret("x")
    with pytest.raises(ValidationError) as caught:
        adapter.validate_python(5)
    assert caught.value.errors()[0]["type"] == "string_type"
    assert adapter.json_schema() == {"type": "string", "writeOnly": True}
