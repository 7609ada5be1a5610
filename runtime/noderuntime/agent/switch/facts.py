"""Observation of the node's kubelet: its process, its unit, and the files that they name."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from noderuntime.agent.layout import Layout
from noderuntime.agent.switch import flags
from noderuntime.agent.switch.plan import KubeletFacts
from noderuntime.agent.systemd import Systemd
from noderuntime.core import durable_files as files
from noderuntime.core.errors import FailedPrecondition

_PROPERTIES = ("FragmentPath", "DropInPaths", "EnvironmentFiles")


async def observe(layout: Layout, systemd: Systemd) -> KubeletFacts:
    """Return the kubelet's facts. FailedPrecondition if systemd runs no kubelet on this node."""
    pid, unit = await _find(layout, systemd)
    argv = _argv(layout, pid)
    shown = await systemd.show(unit, *_PROPERTIES)
    unit_paths = [Path(shown["FragmentPath"]), *map(Path, shlex.split(shown["DropInPaths"]))]
    config = flags.last(argv, "config")
    directory = flags.last(argv, "config-dir")
    facts = KubeletFacts(
        unit=unit,
        argv=argv,
        environment_files=_texts(layout, _environment_paths(shown["EnvironmentFiles"])),
        config=_text(layout, Path(config)) if config else None,
        instance_config=_text(layout, Path(config).with_name("instance-config.yaml")) if config else None,
        config_dir=Path(directory) if directory else None,
        drop_ins=_texts(layout, _conf_files(layout, Path(directory))) if directory else {},
    )
    unit_files = _texts(layout, unit_paths)
    override = unit_files.pop(facts.override_path, None)
    return replace(facts, unit_files=unit_files, unit_override=override)


async def _find(layout: Layout, systemd: Systemd) -> tuple[int, str]:
    """Return the kubelet's PID and unit."""
    pid = await systemd.main_pid("kubelet.service")
    if pid and _is_kubelet(_argv(layout, pid)):
        return pid, "kubelet.service"
    found = {
        (int(entry.name), unit)
        for entry in layout.proc.iterdir()
        if entry.name.isdigit() and _is_kubelet(_argv(layout, int(entry.name)))
        if (unit := _unit_of(layout, int(entry.name)))
    }
    if len(found) != 1:
        raise FailedPrecondition(
            f"found {len(found)} kubelets run by systemd, expected one: set kubelet.mode Manual if the"
            " kubelet runs within another program"
        )
    return found.pop()


def _argv(layout: Layout, pid: int) -> tuple[str, ...]:
    try:
        raw = (layout.proc / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(part.decode(errors="replace") for part in raw.split(b"\0")[:-1])


def _is_kubelet(argv: tuple[str, ...]) -> bool:
    return bool(argv) and Path(argv[0]).name == "kubelet"


def _unit_of(layout: Layout, pid: int) -> str | None:
    """Return the service whose cgroup contains the process."""
    text = (files.read(layout.proc / str(pid) / "cgroup") or b"").decode(errors="replace")
    for line in text.splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers in ("", "name=systemd") and path.endswith(".service"):
            return path.rsplit("/", 1)[1]
    return None


def _environment_paths(shown: str) -> list[Path]:
    """Return the paths that ``systemctl show`` prints as ``/path (ignore_errors=yes)``, one or more."""
    return [Path(word) for word in shown.split() if word.startswith("/")]


def _conf_files(layout: Layout, directory: Path) -> list[Path]:
    """Return the drop-ins in the order in which the kubelet reads them: ``*.conf`` at any depth."""
    root = layout.at(directory)
    return [directory / path.relative_to(root) for path in sorted(root.rglob("*.conf")) if path.is_file()]


def _texts(layout: Layout, paths: list[Path]) -> dict[Path, str]:
    found = (_text(layout, path) for path in paths)
    return dict(pair for pair in found if pair)


def _text(layout: Layout, path: Path) -> tuple[Path, str] | None:
    content = files.read(layout.at(path))
    try:
        return None if content is None else (path, content.decode())
    except UnicodeDecodeError as error:
        raise FailedPrecondition(f"{path} is not UTF-8") from error
