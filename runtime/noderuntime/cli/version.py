"""``noderuntime version``."""

from __future__ import annotations

from collections.abc import Sequence

import noderuntime


def run(_arguments: Sequence[str]) -> int:
    """Print the version."""
    print(noderuntime.__version__)
    return 0
