"""The file edits that connect a kubelet to an endpoint. Pure functions.

The sources of the kubelet's endpoint, in descending precedence: the flag on its command line (from an
environment file such as kubeadm's, or from the unit itself), the drop-ins of ``--config-dir`` (the last
by name first), the ``--config`` file, the kubelet's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from noderuntime.agent.switch import configkey, flags, unitfile
from noderuntime.core.errors import FailedPrecondition

KEY = "containerRuntimeEndpoint"
DEFAULT_ENDPOINT = "unix:///run/containerd/containerd.sock"
ConfiguredBy = Literal["FlagsFile", "ConfigFile", "DropIn"]

_DROP_IN_NAME = "99-noderuntime.conf"
_DROP_IN = f"""\
# Written by noderuntime's switch, which removes it when it reverts the kubelet.
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
{KEY}: """


@dataclass(frozen=True, slots=True)
class KubeletFacts:
    """The observed configuration of the node's kubelet. Files' contents are keyed by path."""

    unit: str
    argv: tuple[str, ...]
    environment_files: Mapping[Path, str] = field(default_factory=dict)
    unit_files: Mapping[Path, str] = field(default_factory=dict)
    """The unit and its drop-ins in systemd's order, without the switch's drop-in."""
    unit_override: str | None = None
    """The content of the switch's drop-in for the unit, if it exists."""
    config: tuple[Path, str] | None = None
    instance_config: tuple[Path, str] | None = None
    config_dir: Path | None = None
    drop_ins: Mapping[Path, str] = field(default_factory=dict)

    @property
    def override_path(self) -> Path:
        """The path of the switch's drop-in for the unit."""
        return Path("/etc/systemd/system") / f"{self.unit}.d" / _DROP_IN_NAME

    @property
    def endpoint(self) -> str:
        """The endpoint of the running kubelet."""
        texts = [*(text for _, text in sorted(self.drop_ins.items(), reverse=True))]
        if self.config:
            texts.append(self.config[1])
        configured = (configkey.get(text, KEY) for text in texts)
        return flags.last(self.argv, unitfile.FLAG) or next(filter(None, configured), DEFAULT_ENDPOINT)

    @property
    def healthz_port(self) -> int:
        """The port of /healthz on loopback, or 0 if the kubelet does not serve it."""
        configured = configkey.get(self.config[1], "healthzPort") if self.config else None
        found = flags.last(self.argv, "healthz-port") or configured or "10248"
        return int(found) if found.isdigit() else 10248


@dataclass(frozen=True, slots=True)
class Edit:
    """The change of a file's content. None means that the file does not exist."""

    path: Path
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The edits that change something, and the kind of file that configures the endpoint."""

    edits: tuple[Edit, ...]
    configured_by: ConfiguredBy
    reload: bool
    """Whether systemd must reload its units."""


def plan(facts: KubeletFacts, endpoint: str) -> Plan:
    """Return the plan. Raises FailedPrecondition if the endpoint's source is not found or not editable."""
    by_flags = _environment_edits(facts, endpoint)
    if by_flags or unitfile.mentions_flag(facts.unit_files.values()):
        override = _override_edits(facts, endpoint)
        return _plan([*by_flags, *override], "FlagsFile" if by_flags and not override else "DropIn")
    if facts.unit_override is None and flags.last(facts.argv, unitfile.FLAG):
        raise FailedPrecondition(
            f"the kubelet's --{unitfile.FLAG} is neither in {facts.unit} nor in its environment files:"
            " set it there, or set kubelet.mode Manual"
        )
    if facts.config_dir:
        return _plan([_drop_in_edit(facts, facts.config_dir, endpoint)], "DropIn")
    if facts.config:
        return _plan(_config_edits(facts, endpoint), "ConfigFile")
    return _plan(_override_edits(facts, endpoint, always=True), "DropIn")


def undo(edit: Edit, current: str | None, endpoint: str, previous: str) -> str | None:
    """Return the content of a file after the kubelet's endpoint is reverted to the previous one.

    A file that was not changed since the edit gets its exact old content. In a file that was
    changed, only the endpoint is replaced.
    """
    if current == edit.after or current is None:
        return edit.before
    if endpoint not in current:
        return current
    return None if edit.before is None else current.replace(endpoint, previous)


def _plan(edits: list[Edit], configured_by: ConfiguredBy) -> Plan:
    changes = tuple(edit for edit in edits if edit.before != edit.after)
    reload = any(edit.path.is_relative_to("/etc/systemd/system") for edit in changes)
    return Plan(changes, configured_by, reload)


def _environment_edits(facts: KubeletFacts, endpoint: str) -> list[Edit]:
    return [
        Edit(path, text, flags.replace(text, unitfile.FLAG, endpoint))
        for path, text in facts.environment_files.items()
        if flags.first_in(text, unitfile.FLAG)
    ]


def _override_edits(facts: KubeletFacts, endpoint: str, *, always: bool = False) -> list[Edit]:
    units = tuple(facts.unit_files.values())
    if not always and not unitfile.mentions_flag(units):
        return []
    return [Edit(facts.override_path, facts.unit_override, unitfile.override(units, endpoint))]


def _drop_in_edit(facts: KubeletFacts, directory: Path, endpoint: str) -> Edit:
    """Return the edit of a drop-in that sorts last: the kubelet reads drop-ins in the order of names."""
    others = (path.relative_to(directory).parts[0] for path in facts.drop_ins)
    last = max((name for name in others if not name.endswith(_DROP_IN_NAME)), default="")
    name = _DROP_IN_NAME if last < _DROP_IN_NAME else f"{last}.{_DROP_IN_NAME}"
    path = directory / name
    return Edit(path, facts.drop_ins.get(path), f"{_DROP_IN}{endpoint}\n")


def _config_edits(facts: KubeletFacts, endpoint: str) -> list[Edit]:
    edits = []
    if facts.config:
        path, text = facts.config
        edits.append(Edit(path, text, configkey.put(text, KEY, endpoint)))
    if facts.instance_config and configkey.get(facts.instance_config[1], KEY):
        # kubeadm's copy of the endpoint: the next kubeadm upgrade patches the configuration from this file.
        path, text = facts.instance_config
        edits.append(Edit(path, text, configkey.put(text, KEY, endpoint)))
    return edits
