"""The bundle of a container, as the runtime finds it. Blocks; call it in a thread."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from noderuntime.core.paths import ContainerPaths


def write_spec(paths: ContainerPaths, spec: Mapping[str, Any]) -> None:
    """Write the OCI spec for root's eyes only: it holds the environment, and that secrets."""
    fd = os.open(paths.spec, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(spec, file)
