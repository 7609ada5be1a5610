"""A container's process: arguments, environment and working directory."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.inputs import ImageDefaults
from noderuntime.node.spec.validation import check_text, quoted

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def arguments(config: api_pb2.ContainerConfig, image: ImageDefaults) -> list[str]:
    """Return the command line, as Kubernetes defines it.

    The pod's command replaces the image's entrypoint and cmd. The pod's arguments alone replace cmd. An
    entrypoint of one empty word counts as none: that is how builders reset the one of a base image.
    """
    entrypoint = () if list(image.entrypoint) == [""] else image.entrypoint
    if config.command:
        argv = [*config.command, *config.args]
    elif config.args:
        argv = [*entrypoint, *config.args]
    else:
        argv = [*entrypoint, *image.cmd]
    if not argv or not argv[0]:
        raise InvalidArgument("no command: set one in the pod or in the image")
    return [check_text(word, "the command") for word in argv]


def environment(config: api_pb2.ContainerConfig, image: ImageDefaults, hostname: str) -> list[str]:
    """Return the variables as ``NAME=value``. Precedence: the pod's, the image's, the defaults."""
    values = {"PATH": DEFAULT_PATH}
    if config.tty:
        values["TERM"] = "xterm"
    values["HOSTNAME"] = hostname
    values.update(_pairs(image.env))
    for pair in config.envs:
        if not pair.key or "=" in pair.key:
            raise InvalidArgument(
                f"environment variable name {quoted(pair.key)} is invalid (empty, or contains =)"
            )
        values[pair.key] = pair.value.decode(errors="replace")  # OCI specs are JSON, which is Unicode
    return [check_text(f"{name}={value}", "the environment") for name, value in values.items()]


def directory(config: api_pb2.ContainerConfig, image: ImageDefaults) -> str:
    """Return the working directory. The OCI runtime creates it if it is missing."""
    return posixpath.join("/", check_text(config.working_dir or image.working_dir, "the working directory"))


def _pairs(env: Iterable[str]) -> Iterable[tuple[str, str]]:
    for entry in env:
        name, separator, value = entry.partition("=")
        if name and separator:
            yield name, value
