"""crun, even on a machine whose cgroups it rejects: v1 beside a v2 hierarchy with controllers.

There it is called in a mount namespace that does not show v2, so that it finds v1 alone.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from realnode.tools import tool

_UNIFIED = Path("/sys/fs/cgroup/unified")
_INSIDE = f'umount {_UNIFIED}; exec {{crun}} "$@"'


def crun(directory: Path) -> Path:
    """Return a program that runs crun. A wrapper script may be written into the directory."""
    found = tool("crun")
    controllers = _UNIFIED / "cgroup.controllers"
    if not controllers.exists() or not controllers.read_text().strip():
        return found
    wrapper = directory / "crun"
    inside = shlex.quote(_INSIDE.format(crun=found))
    wrapper.write_text(f'#!/bin/sh\nexec unshare --mount --propagation slave /bin/sh -c {inside} crun "$@"\n')
    wrapper.chmod(0o755)
    return wrapper
