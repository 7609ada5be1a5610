"""Canary sandboxes: made by the agent to prove a handler, hidden from everybody else.

The kubelet takes a sandbox that it did not ask for for the orphan of a pod and stops it.
"""

from __future__ import annotations

from collections.abc import Mapping

LABEL = "noderuntime.dev/canary"


def is_hidden(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Tell whether a list with this label selector leaves the sandbox out."""
    return LABEL in labels and LABEL not in selector
