"""Canary sandboxes, which the agent creates to prove a handler. They are hidden from other clients.

The kubelet would take a sandbox that it did not create for the leftover of a pod, and stop it.
"""

from __future__ import annotations

from collections.abc import Mapping

LABEL = "noderuntime.dev/canary"


def is_hidden(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Return whether a list with this label selector omits the sandbox."""
    return LABEL in labels and LABEL not in selector
