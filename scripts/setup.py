"""Install what make demo and make test need and this machine does not have.

These are Debian packages (with those named as arguments), the Python venv, and the programs of
tools/programs.toml. Runs with the system's Python and its standard library. Everything but the Debian
packages goes to $NODERUNTIME_CACHE (default ~/.cache/noderuntime). A second run does nothing.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tomllib
from pathlib import Path

import debian
import goprograms
from environment import CACHE, REPO, make_venv

PACKAGES = (
    "buildah", "busybox-static", "ca-certificates", "catatonit", "conmon", "crun", "curl",
    "debian-archive-keyring", "e2fsprogs", "gcc", "git", "iproute2",
    "iptables", "jq", "libc6-dev", "make", "mmdebstrap", "mount", "openssl", "patchelf",
    "pkg-config", "procps", "python3-venv", "util-linux",
)  # fmt: skip


def main() -> int:
    """Check the machine and install what is missing; report a failure on one line and return 1."""
    try:
        check_machine()
        table = tomllib.loads((REPO / "tools/programs.toml").read_text(encoding="utf-8"))
        debian.install((*PACKAGES, *sys.argv[1:]))
        make_venv()
        for name, entry in table["debian"].items():
            debian.link_programs(name, entry, CACHE)
        go = goprograms.find_go(table["toolchain"], CACHE)
        for name, entry in table["go"].items():
            goprograms.build(go, REPO / "tools" / name, entry, CACHE / "bin")
    except (SystemExit, subprocess.CalledProcessError, OSError) as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    print(f"setup: everything is in {CACHE}")
    return 0


def check_machine() -> None:
    """Raise SystemExit if this machine lacks something that cannot be installed."""
    if os.geteuid() != 0:
        raise SystemExit(
            "root is required for network namespaces, mounts and cgroups; `make check` does without"
        )
    if platform.machine() != "x86_64":
        raise SystemExit(f"architecture {platform.machine()} is not supported: use an x86_64 machine")
    if not Path("/etc/debian_version").exists():
        raise SystemExit("this system is not Debian, and packages come from apt: use Debian 12")


if __name__ == "__main__":
    sys.exit(main())
