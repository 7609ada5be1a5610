"""Label selectors of CRI filters. Pure."""

from __future__ import annotations

from collections.abc import Mapping


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Tell whether every label of the selector is there with that value; an empty selector takes all."""
    return all(labels.get(key) == value for key, value in selector.items())
