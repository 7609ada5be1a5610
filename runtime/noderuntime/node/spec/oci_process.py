"""What runs: arguments, environment, directory, terminal."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.spec.inputs import ImageDefaults
from noderuntime.node.spec.words import clean

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def arguments(config: api_pb2.ContainerConfig, image: ImageDefaults) -> list[str]:
    """Return the command line.

    Kubernetes: a command replaces entrypoint and cmd, arguments alone replace cmd.
    """
    if config.command:
        argv = [*config.command, *config.args]
    elif config.args:
        argv = [*image.entrypoint, *config.args]
    else:
        argv = [*image.entrypoint, *image.cmd]
    if not argv or not argv[0]:
        raise InvalidArgument("no command: neither the pod nor the image names one")
    return [clean(word, "the command") for word in argv]


def environment(config: api_pb2.ContainerConfig, image: ImageDefaults, hostname: str) -> list[str]:
    """Return ``NAME=value`` each; the pod's win over the image's, and those over ours."""
    values = {"PATH": DEFAULT_PATH}
    if config.tty:
        values["TERM"] = "xterm"
    values["HOSTNAME"] = hostname
    values.update(_pairs(image.env))
    for pair in config.envs:
        if not pair.key or "=" in pair.key:
            raise InvalidArgument("an environment variable has no valid name")
        values[pair.key] = pair.value.decode(errors="replace")  # OCI's JSON holds nothing but Unicode
    return [clean(f"{name}={value}", "the environment") for name, value in values.items()]


def directory(config: api_pb2.ContainerConfig, image: ImageDefaults) -> str:
    """Return the directory to start in; the runtime makes it where it is missing."""
    return posixpath.join("/", clean(config.working_dir or image.working_dir, "the working directory"))


def _pairs(env: Iterable[str]) -> Iterable[tuple[str, str]]:
    for entry in env:
        name, separator, value = entry.partition("=")
        if name and separator:
            yield name, value
