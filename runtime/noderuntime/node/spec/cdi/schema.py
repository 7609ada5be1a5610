"""The schema of CDI files. Unknown fields make a file invalid: a device must not be applied partially."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

_MAX_LENGTH = 4096

Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]+$", max_length=_MAX_LENGTH)]
Absolute = Annotated[str, StringConstraints(pattern=r"^/[^\x00]*$", max_length=_MAX_LENGTH)]
Variable = Annotated[str, StringConstraints(pattern=r"^[^=\x00]+=[^\x00]*$", max_length=_MAX_LENGTH)]
Id = Annotated[int, Field(ge=0, lt=2**32)]
Number = Annotated[int, Field(ge=0, lt=2**31)]

_NAME = r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?"
_DEVICE = r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?"
QUALIFIED = re.compile(rf"{_NAME}/{_NAME}={_DEVICE}")
"""The qualified name of a device: ``vendor.example/class=name``."""


class _Object(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DeviceNode(_Object):
    """A device node to create in the container."""

    path: Absolute
    host_path: Absolute | None = Field(default=None, alias="hostPath")
    """Path of the device on the node. Default: the same path."""
    type: Literal["b", "c", "u", "p"] | None = None
    major: Number = 0
    minor: Number = 0
    file_mode: Number | None = Field(default=None, alias="fileMode")
    permissions: Annotated[str, StringConstraints(pattern=r"^(none|[rwm]{0,3})$")] = ""
    uid: Id | None = None
    gid: Id | None = None


class Mount(_Object):
    """A mount to add to the container."""

    host_path: Text = Field(alias="hostPath")
    container_path: Absolute = Field(alias="containerPath")
    type: Text | None = None
    options: list[Text] = []


class Hook(_Object):
    """A program of the node that the OCI runtime runs at a point of the container's lifecycle."""

    hook_name: Literal[
        "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"
    ] = Field(alias="hookName")
    path: Absolute
    args: list[Text] = []
    env: list[Variable] = []
    timeout: Annotated[int, Field(gt=0, lt=2**31)] | None = None
    """Seconds."""


class IntelRdt(_Object):
    """Intel Resource Director Technology: allocation of cache and memory bandwidth."""

    clos_id: Annotated[str, StringConstraints(pattern=r"^(/|[^/\n\x00]*)$", max_length=255)] | None = Field(
        default=None, alias="closID"
    )
    l3_cache_schema: Text | None = Field(default=None, alias="l3CacheSchema")
    mem_bw_schema: Text | None = Field(default=None, alias="memBwSchema")
    enable_cmt: bool = Field(default=False, alias="enableCMT")
    enable_mbm: bool = Field(default=False, alias="enableMBM")


class Edits(_Object):
    """The edits of the OCI spec of a container that uses a device."""

    env: list[Variable] = []
    device_nodes: list[DeviceNode] = Field(default=[], alias="deviceNodes")
    mounts: list[Mount] = []
    hooks: list[Hook] = []
    intel_rdt: IntelRdt | None = Field(default=None, alias="intelRdt")
    additional_gids: list[Id] = Field(default=[], alias="additionalGids")


class Device(_Object):
    """A device of a CDI file."""

    name: Annotated[str, StringConstraints(pattern=rf"^{_DEVICE}$", max_length=255)]
    annotations: Mapping[str, str] = {}
    edits: Edits = Field(alias="containerEdits")


class File(_Object):
    """The content of a CDI file."""

    version: Annotated[
        str, StringConstraints(pattern=r"^v?(0\.[3-8]\.0|1\.[01]\.0)$"), Field(alias="cdiVersion")
    ]
    kind: Annotated[str, StringConstraints(pattern=rf"^{_NAME}/{_NAME}$", max_length=317)]
    annotations: Mapping[str, str] = {}
    devices: Annotated[list[Device], Field(min_length=1)]
    edits: Edits = Field(default=Edits(), alias="containerEdits")
    """Applied once to a container that uses any device of the file."""
