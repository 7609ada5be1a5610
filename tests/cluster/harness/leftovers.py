"""Objects that a cluster can leave on the machine."""

from __future__ import annotations

from pathlib import Path

from harness.network import Network, namespaces
from harness.ocispec import cgroup_directories
from harness.paths import RUN
from harness.run import run, succeeds


def leftovers(network: Network, directory: Path) -> list[str]:
    """Return a line for each process, mount, namespace, cgroup, interface, rule and file that is left."""
    marks = (str(directory) + "/", f"{RUN / network.cluster}/")
    return [
        *_processes(marks),
        *_mounts((*marks, f"nr-{network.cluster} ")),
        *(f"network namespace {name}" for name in namespaces() if name.startswith(network.netns(""))),
        *(f"cgroup {path}" for path in cgroup_directories(f"/noderuntime/{network.cluster}")),
        *([f"interface {network.bridge}"] if succeeds("ip", "link", "show", network.bridge) else []),
        *(f"iptables rule {rule}" for rule in _rules(network)),
        *(f"directory {path}" for path in (directory, RUN / network.cluster) if path.exists()),
    ]


def _processes(marks: tuple[str, ...]) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            cgroups = (process / "cgroup").read_text()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        cluster = f"/noderuntime/{Path(marks[0]).name}/"
        if state in "ZX":  # a zombie whose parent is outside of the cluster
            continue
        if any(mark in words for mark in marks) or cluster in cgroups:
            found.append(f"process {process.name}: {words[:120]}")
    return found


def _mounts(marks: tuple[str, ...]) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [f"mount {line.split()[1]}" for line in lines if any(mark in line for mark in marks)]


def _rules(network: Network) -> list[str]:
    prefix = network.host_ip.rsplit(".", 1)[0] + "."
    rules = [line for table in ("filter", "nat") for line in run("iptables", "-t", table, "-S").splitlines()]
    return [rule for rule in rules if prefix in rule or network.bridge in rule]
