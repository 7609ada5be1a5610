"""Bring what make demo and make test need, and nothing that is there already.

Debian packages (and those named as arguments), a Python venv, and the programs of
tools/programs.toml. Runs with the system's own Python and its standard library; everything but
the Debian packages goes to $NODERUNTIME_CACHE (default ~/.cache/noderuntime). A second run does nothing.
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
    "debian-archive-keyring", "gcc", "git", "golang-github-containers-common", "iproute2", "iptables",
    "jq", "libc6-dev", "libseccomp-dev", "make", "mmdebstrap", "mount", "openssl", "patchelf",
    "pkg-config", "procps", "python3-venv", "util-linux",
)  # fmt: skip


def main() -> int:
    """Check the machine, then bring what is missing; one clear line when it cannot be."""
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
    """Say what this machine lacks that no package brings."""
    if os.geteuid() != 0:
        raise SystemExit("the cluster needs root: network namespaces, mounts and cgroups")
    if platform.machine() != "x86_64":
        raise SystemExit(f"only x86_64 is tried, this is {platform.machine()}")
    if not Path("/etc/debian_version").exists():
        raise SystemExit("packages come from apt: run this on Debian 12")


if __name__ == "__main__":
    sys.exit(main())
