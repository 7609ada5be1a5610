"""The sandbox's files ``resolv.conf`` and ``hostname``. The functions block; call them in a thread."""

from __future__ import annotations

import os
import re
from pathlib import Path

from noderuntime.core.errors import InvalidArgument
from noderuntime.core.paths import SandboxPaths
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.host.base import UserNamespace
from noderuntime.node.spec.hostname import hostname_of

_HOST_RESOLV_CONF = Path("/etc/resolv.conf")
_RESOLV_CONF_LIMIT = 1 << 16
_WORD = re.compile(r"\S{1,1024}")


def resolv_conf(dns: api_pb2.DNSConfig) -> str:
    """Return a pod's DNS settings in the format of resolv.conf(5); empty without settings.

    InvalidArgument for a value that contains white space, which would end it.
    """
    for word in (*dns.servers, *dns.searches, *dns.options):
        if not _WORD.fullmatch(word):
            raise InvalidArgument(f"DNS setting {word[:80]!r} must not be empty or contain white space")
    lines = [f"nameserver {server}" for server in dns.servers]
    if dns.searches:
        lines.insert(0, f"search {' '.join(dns.searches)}")
    if dns.options:
        lines.append(f"options {' '.join(dns.options)}")
    return "".join(f"{line}\n" for line in lines)


def write_files(paths: SandboxPaths, config: api_pb2.PodSandboxConfig, user: UserNamespace | None) -> None:
    """Create the sandbox's directory, its files, and the mount point of its /dev/shm.

    A sandbox without DNS settings has the node's; empty settings are an empty file. In a user namespace, the
    files belong to the namespace's root.
    """
    paths.dir.mkdir(mode=0o711, parents=True)
    paths.shm.mkdir()
    dns = resolv_conf(config.dns_config) if config.HasField("dns_config") else _resolv_conf_of_node()
    for path, text in ((paths.resolv_conf, dns), (paths.hostname, hostname_of(config) + "\n")):
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)
        if user is not None:
            os.chown(path, *user.root)


def _resolv_conf_of_node() -> str:
    if not _HOST_RESOLV_CONF.exists():
        return ""
    with _HOST_RESOLV_CONF.open(encoding="utf-8", errors="replace") as file:
        return file.read(_RESOLV_CONF_LIMIT)
