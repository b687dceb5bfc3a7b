"""A string that must not be shown.

Contract: `Secret` masks itself in `repr`, `str`, f-strings and pydantic dumps; the text leaves it only through
`reveal()`, so that every place that uses a secret can be found by name. It never logs, never compares in variable
time (`==` is constant time for equal lengths) and cannot be ordered, sliced or joined by accident.
"""

import hmac
from typing import final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema
from typing_extensions import override

MASK = "********"


@final
class Secret:
    """One secret text, immutable. Equal to another `Secret` of the same text, to nothing else."""

    __slots__ = ("_text",)
    _text: str

    def __init__(self, text: str) -> None:
        object.__setattr__(self, "_text", text)

    def reveal(self) -> str:
        """The text itself. Hand it only to the thing that needs it; never keep it in a message or a log."""
        return self._text

    @override
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Secret cannot be changed")

    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    @override
    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __bool__(self) -> bool:
        return bool(self._text)

    @override
    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    @override
    def __str__(self) -> str:
        return MASK

    @override
    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    @override
    def __reduce__(self) -> tuple[object, ...]:
        # Pickle and copy would write the text into a byte string that nothing masks.
        raise TypeError("a Secret cannot be pickled")

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "Secret":
        return self

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept a string (or a `Secret`) in configuration; show the mask when it is dumped."""
        from_text = core_schema.no_info_after_validator_function(cls, core_schema.str_schema())
        return core_schema.union_schema(
            [core_schema.is_instance_schema(cls), from_text],
            custom_error_type="string_type",
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "writeOnly": True}
