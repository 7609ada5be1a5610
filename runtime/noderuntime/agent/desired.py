"""The desired configuration of the daemon and the switch: two files, pure functions of the instance's spec.

``config.toml`` configures the daemon. ``switch.toml`` configures the switch, which connects the kubelet
to the daemon. Both files can also be written by hand.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from noderuntime.agent import units
from noderuntime.agent.instance import InstanceGvisor, InstanceRuntime, InstanceSpec
from noderuntime.agent.switch.release import Release
from noderuntime.config import RunscConfig
from noderuntime.core import log
from noderuntime.core.errors import InvalidArgument, first_problem

_log = log.get(__name__)

_HEAD = (
    "# Written by the noderuntime agent, which reverts changes. Put your own settings into conf.d/*.toml.\n"
)
_TOOLS = {"Runc": ("runc", "runc"), "GVisor": ("gvisor", "runsc")}


class SwitchConfig(BaseModel):
    """The content of ``switch.toml``."""

    # Unknown keys are ignored: the agent of the next version may write more than this version knows.
    model_config = ConfigDict(extra="ignore", frozen=True)

    revision: str = "by-hand"
    """Copied to the result, so that the agent knows which configuration was applied."""
    retry: str = ""
    """A failed release is tried again when this value has changed."""
    state: Literal["Installed", "Removed"] = "Installed"
    mode: Literal["Delegate", "Replace", "Manual"] = "Delegate"
    timeout_seconds: Annotated[int, Field(ge=10, le=3600)] = 120
    upstream_socket: Annotated[str, Field(pattern=r"^/[^\s\"']+$", max_length=107)] | None = None


def daemon_config(spec: InstanceSpec, digest: str) -> str:
    """Return ``config.toml`` for these handlers, with the tools of this version of the bundle.

    The paths do not use the symlink ``current``: runc refuses a root filesystem behind a symlink, and a
    running daemon must not mix versions when the symlink changes.
    """
    home = f"/opt/noderuntime/versions/{digest}"
    parts = [
        _HEAD,
        f'\n[network]\nplugin_dirs = ["/opt/cni/bin", "/usr/lib/cni", "{home}/bin/cni"]\n',
        "\n[tools]\n"
        f'busybox = "{home}/bin/busybox"\n'
        f'conmon = "{home}/bin/conmon"\n'
        f'pause_rootfs = "{home}/share/pause"\n',
    ]
    for handler in sorted(spec.handlers, key=lambda handler: handler.name):
        kind, tool = _TOOLS[handler.type]
        table = f"handlers.{to_toml(handler.name)}"
        parts.append(f'\n[{table}]\ntype = "{kind}"\npath = "{home}/bin/{tool}"\n')
        if handler.type == "GVisor":
            parts.append(_table(f"{table}.runsc", _runsc(spec.runtime.gvisor)))
    return "".join((*parts, *_own_settings(spec.runtime)))


def _own_settings(runtime: InstanceRuntime) -> list[str]:
    """Return the tables of the daemon's own settings. A default is left out, so that old files stay equal."""
    level, metrics = runtime.log_level.lower(), runtime.metrics
    return [
        _table("log", {"level": level} if level != "info" else {}),
        _table("metrics", {"address": metrics.address} if metrics else {}),
    ]


def _runsc(gvisor: InstanceGvisor) -> dict[str, str | bool]:
    """Return the settings that are not the default of :class:`noderuntime.config.RunscConfig`."""
    chosen = RunscConfig(
        platform="kvm" if gvisor.platform == "KVM" else "systrap",
        host_uds="open" if gvisor.host_sockets == "Connect" else "none",
        directfs=gvisor.direct_fs,
        core_tags=gvisor.core_tags,
    )
    return chosen.model_dump(exclude_defaults=True)


def _table(name: str, values: Mapping[str, str | bool]) -> str:
    """Return a TOML table, or nothing if it is empty."""
    lines = "".join(f"{key} = {to_toml(value)}\n" for key, value in values.items())
    return f"\n[{name}]\n{lines}" if lines else ""


def to_toml(value: str | bool | int) -> str:
    """Return the value in TOML, which refuses JSON's escapes of surrogates, and DEL without an escape."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def release(digest: str, config: str) -> Release:
    """Return the release of this version of the bundle with the daemon's configuration."""
    revision = units.daemon_revision(digest, config)
    return Release(revision=revision, digest=digest, config=config, units=units.render(revision))


def switch_config(spec: InstanceSpec, digest: str, retry: str = "") -> SwitchConfig:
    """Return the switch's configuration. Its revision changes with everything that the switch acts on."""
    fields = {
        "retry": retry,
        "state": spec.state,
        "mode": spec.kubelet.mode,
        "timeout_seconds": spec.kubelet.switch_timeout_seconds,
        "upstream_socket": spec.upstream_socket,
    }
    content = json.dumps([fields, daemon_config(spec, digest)], sort_keys=True)
    revision = hashlib.sha256(content.encode()).hexdigest()[:16]
    try:
        return SwitchConfig.model_validate({**fields, "revision": revision})
    except ValidationError as error:
        raise InvalidArgument(f"instance: {first_problem(error)}") from error


def render(config: SwitchConfig) -> str:
    """Return ``switch.toml``."""
    lines = [f"{key} = {to_toml(value)}\n" for key, value in config.model_dump(exclude_none=True).items()]
    return _HEAD + "".join(lines)


def load(path: Path) -> SwitchConfig:
    """Read ``switch.toml``. A missing file gives the defaults. InvalidArgument names the invalid key."""
    try:
        return SwitchConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return SwitchConfig()
    except ValidationError as error:
        raise InvalidArgument(f"{path}: {first_problem(error)}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgument(f"{path}: {error}") from error


def load_if_valid(path: Path) -> SwitchConfig:
    """Read ``switch.toml``, or return the defaults if it is invalid: a rollback must not depend on it."""
    try:
        return load(path)
    except InvalidArgument as error:
        _log.error("the switch's configuration is invalid", error=error)
        return SwitchConfig()
