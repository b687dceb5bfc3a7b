"""Settings of routing: how names are joined and how lists over many backends are bounded.

Contract: a frozen plain dataclass; no I/O. `config.py` fills it and checks the separator against the backend names.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le
from pydantic import ConfigDict, StringConstraints


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How the backends appear as one server on `/mcp`."""

    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid", "use_attribute_docstrings": True}

    separator: Annotated[str, StringConstraints(pattern=r"^[._/-]{1,3}$")] = "."
    """Between backend and tool or prompt name: `jira.create_issue`. One to three of `.`, `_`, `-`, `/`: the characters
    the specification allows in tool names, and `/`. Choose `__` for hosts that refuse dots in tool names."""
    page_size: Annotated[int, Ge(1), Le(100_000)] = 1_000
    """A merged list longer than this is cut and continued with a signed cursor. Most hosts read only the first page,
    so it is large."""
    list_timeout_s: Annotated[float, Gt(0), Le(600)] = 5.0
    """How long a list waits for slow backends before it is answered without them (and says so)."""
    max_cache_entries: Annotated[int, Ge(0), Le(1_000_000)] = 1_024
    """Cached lists and resources, least recently used out first. 0 switches caching off."""
    max_items_per_backend: Annotated[int, Ge(1), Le(1_000_000)] = 10_000
    """Tools, prompts or resources taken from one backend, over all its pages: a backend whose list never ends must
    not fill the memory."""
