"""Expected outcomes: specs that cannot pass in gVisor, and allowed reasons of skipped specs."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

MAY_SKIP = (
    "AppArmor is disabled on this host",
    "NRI socket not configured",  # noderuntime has no NRI
    "ID mapping is not supported",  # by the filesystem of the images
)
"""Prefixes of the allowed skip messages; any other skipped spec is a missing feature."""


NOT_THROUGH_CONTAINERD = ("runtime should support listing pod sandbox metrics",)
"""Skipped if the suite's pods are containerd's: if a runtime describes metrics, as the daemon does for its
pods, the suite requires them of every pod, and containerd 2.1 has none."""


def not_in_gvisor() -> Sequence[str]:
    """Return the names of the specs in the list; the reasons are documentation."""
    table = tomllib.loads(Path(__file__).with_name("not-in-gvisor.toml").read_text(encoding="utf-8"))
    return [spec for entry in table["impossible"] for spec in entry["specs"]]
