"""Label selectors of CRI filters. Pure."""

from __future__ import annotations

from collections.abc import Mapping


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Return whether the labels contain every pair of the selector. An empty selector matches all."""
    return all(labels.get(key) == value for key, value in selector.items())
