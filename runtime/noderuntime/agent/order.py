"""What the agent orders of its node: two files, pure functions of the instance's spec.

``config.toml`` is the daemon's; ``switch.toml`` tells the host's switch what the
kubelet should talk to. Both are plain enough to be written by hand.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from noderuntime.agent.instance import InstanceSpec
from noderuntime.core.errors import InvalidArgument

_HEAD = "# Written by the noderuntime agent; changes by hand are undone. Use conf.d/*.toml for your own.\n"
_TOOLS = {"Runc": ("runc", "runc"), "GVisor": ("gvisor", "runsc")}


class Order(BaseModel):
    """The content of ``switch.toml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    revision: str = "by-hand"
    """Comes back in the result, so that the agent knows which order was carried out."""
    state: Literal["Installed", "Removed"] = "Installed"
    mode: Literal["Delegate", "Replace", "Manual"] = "Delegate"
    timeout_seconds: Annotated[int, Field(ge=10, le=3600)] = 120
    upstream_socket: Annotated[str, Field(pattern=r"^/[^\s\"']+$", max_length=107)] | None = None


def daemon_config(spec: InstanceSpec, digest: str) -> str:
    """Return ``config.toml`` for these handlers, with the tools of this very version of the bundle.

    Not by way of the link ``current``: runc refuses a root filesystem behind a link, and a
    daemon that runs on while the link moves must not mix versions.
    """
    home = f"/opt/noderuntime/versions/{digest}"
    parts = [
        _HEAD,
        f'\n[network]\nplugin_dirs = ["/opt/cni/bin", "/usr/lib/cni", "{home}/bin/cni"]\n',
        "\n[tools]\n"
        f'busybox = "{home}/bin/busybox"\n'
        f'conmon = "{home}/bin/conmon"\n'
        f'pause_rootfs = "{home}/share/pause"\n'
        f'seccomp_profile = "{home}/share/seccomp.json"\n',
    ]
    for handler in sorted(spec.handlers, key=lambda one: one.name):
        kind, tool = _TOOLS[handler.type]
        parts.append(
            f'\n[handlers.{json.dumps(handler.name)}]\ntype = "{kind}"\npath = "{home}/bin/{tool}"\n'
        )
    return "".join(parts)


def switch_order(spec: InstanceSpec, digest: str) -> Order:
    """Return the order; its revision changes with everything that the switch would act on."""
    fields = {
        "state": spec.state,
        "mode": spec.kubelet.mode,
        "timeout_seconds": spec.kubelet.switch_timeout_seconds,
        "upstream_socket": spec.upstream_socket,
    }
    seen = json.dumps([fields, daemon_config(spec, digest)], sort_keys=True)
    revision = hashlib.sha256(seen.encode()).hexdigest()[:16]
    try:
        return Order.model_validate({**fields, "revision": revision})
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidArgument(f"instance: {first['loc'][0]}: {first['msg']}") from error


def render(order: Order) -> str:
    """Return ``switch.toml``."""
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in order.model_dump(exclude_none=True).items()]
    return _HEAD + "".join(lines)


def load(path: Path) -> Order:
    """Read ``switch.toml``; a missing one orders the defaults. InvalidArgument names what is wrong."""
    try:
        return Order.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Order()
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidArgument(f"{path}: {first['loc'][0]}: {first['msg']}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgument(f"{path}: {error}") from error
