"""Which files to change so that this kubelet talks to an endpoint. Pure.

What the kubelet obeys, strongest first: the flag on its command line (from an
environment file such as kubeadm's, or from the unit itself), the drop-ins of
``--config-dir`` in the order of their names, the ``--config`` file, its default.
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

_OUR_NAME = "99-noderuntime.conf"
_DROP_IN = f"""\
# Written by noderuntime's switch, which removes it when the kubelet goes back.
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
{KEY}: """


@dataclass(frozen=True, slots=True)
class KubeletFacts:
    """What was found of the node's kubelet. Texts are keyed by their paths."""

    unit: str
    argv: tuple[str, ...]
    environment_files: Mapping[Path, str] = field(default_factory=dict)
    unit_files: Mapping[Path, str] = field(default_factory=dict)
    """The unit and its drop-ins, in systemd's order, ours left out."""
    unit_override: str | None = None
    """Our own drop-in of the unit, if it is there."""
    config: tuple[Path, str] | None = None
    instance_config: tuple[Path, str] | None = None
    config_dir: Path | None = None
    drop_ins: Mapping[Path, str] = field(default_factory=dict)

    @property
    def override_path(self) -> Path:
        """Where our drop-in of the unit lies or would lie."""
        return Path("/etc/systemd/system") / f"{self.unit}.d" / _OUR_NAME

    @property
    def endpoint(self) -> str:
        """The endpoint that the running kubelet was started with."""
        texts = [*(text for _, text in sorted(self.drop_ins.items(), reverse=True))]
        if self.config:
            texts.append(self.config[1])
        configured = (configkey.get(text, KEY) for text in texts)
        return flags.last(self.argv, unitfile.FLAG) or next(filter(None, configured), DEFAULT_ENDPOINT)

    @property
    def healthz_port(self) -> int:
        """The port of /healthz on loopback; 0 if the kubelet serves none."""
        configured = configkey.get(self.config[1], "healthzPort") if self.config else None
        found = flags.last(self.argv, "healthz-port") or configured or "10248"
        return int(found) if found.isdigit() else 10248


@dataclass(frozen=True, slots=True)
class Edit:
    """One file, as it was and as it shall be; None is no such file."""

    path: Path
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The edits, none of them idle, and where the kubelet reads its endpoint."""

    edits: tuple[Edit, ...]
    configured_by: ConfiguredBy
    reload: bool
    """Whether systemd has to read its units again."""


def plan(facts: KubeletFacts, endpoint: str) -> Plan:
    """Say what to change. Raises FailedPrecondition when the place cannot be found or edited surely."""
    by_flags = _environment_edits(facts, endpoint)
    if by_flags or unitfile.mentions_flag(facts.unit_files.values()):
        override = _override_edits(facts, endpoint)
        return _made([*by_flags, *override], "FlagsFile" if by_flags and not override else "DropIn")
    if facts.unit_override is None and flags.last(facts.argv, unitfile.FLAG):
        raise FailedPrecondition(
            f"the kubelet's --{unitfile.FLAG} is neither in {facts.unit} nor in an environment file of it"
        )
    if facts.config_dir:
        return _made([_drop_in_edit(facts, facts.config_dir, endpoint)], "DropIn")
    if facts.config:
        return _made(_config_edits(facts, endpoint), "ConfigFile")
    return _made(_override_edits(facts, endpoint, always=True), "DropIn")


def undo(edit: Edit, current: str | None, ours: str, theirs: str) -> str | None:
    """Return what a file becomes when the kubelet goes back from endpoint ours to theirs.

    Nobody touched it since: the very bytes it had. Somebody did: only our endpoint
    is taken out of what is there now.
    """
    if current == edit.after or current is None:
        return edit.before
    if ours not in current:
        return current
    return None if edit.before is None else current.replace(ours, theirs)


def _made(edits: list[Edit], configured_by: ConfiguredBy) -> Plan:
    real = tuple(edit for edit in edits if edit.before != edit.after)
    return Plan(real, configured_by, any(edit.path.is_relative_to("/etc/systemd/system") for edit in real))


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
    """Our own file has to come last: the kubelet walks the directory in the order of the names."""
    others = (path.relative_to(directory).parts[0] for path in facts.drop_ins)
    last = max((name for name in others if not name.endswith(_OUR_NAME)), default="")
    name = _OUR_NAME if last < _OUR_NAME else f"{last}.{_OUR_NAME}"
    path = directory / name
    return Edit(path, facts.drop_ins.get(path), f"{_DROP_IN}{endpoint}\n")


def _config_edits(facts: KubeletFacts, endpoint: str) -> list[Edit]:
    edits = []
    if facts.config:
        path, text = facts.config
        edits.append(Edit(path, text, configkey.put(text, KEY, endpoint)))
    if facts.instance_config and configkey.get(facts.instance_config[1], KEY):
        # kubeadm's own note of the endpoint: its next upgrade patches the configuration from here.
        path, text = facts.instance_config
        edits.append(Edit(path, text, configkey.put(text, KEY, endpoint)))
    return edits
