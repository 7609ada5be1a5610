"""What the suite cannot have: specs that cannot hold in gVisor, and why a spec may skip itself."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

MAY_SKIP = (
    "AppArmor is disabled on this host",
    "NRI socket not configured",  # there is no NRI here
    "ID mapping is not supported",  # by the filesystem below the images
)
"""What a spec may begin with when it skips itself; anything else is a feature that we lack."""


NOT_THROUGH_CONTAINERD = ("runtime should support listing pod sandbox metrics",)
"""Left out where the suite's pods are containerd's: once anybody describes metrics, as we do for our own
pods, the suite wants them of every pod, and containerd 2.1 has none."""


def not_in_gvisor() -> Sequence[str]:
    """Return the names of the list; why each stands there is for people to read."""
    table = tomllib.loads(Path(__file__).with_name("not-in-gvisor.toml").read_text(encoding="utf-8"))
    return [spec for entry in table["impossible"] for spec in entry["specs"]]
