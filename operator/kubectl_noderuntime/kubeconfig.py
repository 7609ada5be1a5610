"""Find the cluster as kubectl does: --kubeconfig, $KUBECONFIG, ~/.kube/config, then the pod's account."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.config.config_exception import ConfigException

from kubectl_noderuntime.errors import Unreadable


@dataclass(frozen=True)
class Target:
    """The cluster that a command talks to, and the namespace of pods whose namespace is not given."""

    configuration: Configuration
    namespace: str


async def load(kubeconfig: str | None, context: str | None) -> Target:
    """Return the cluster that the options select. Raises Unreadable."""
    files = _files(kubeconfig)
    configuration = Configuration()
    try:
        if not files and not kubeconfig and "KUBERNETES_SERVICE_HOST" in os.environ:
            load_incluster_config(client_configuration=configuration)
            return Target(configuration, "default")
        chosen = context or _current_context(files)
        loader = await load_kube_config(
            os.pathsep.join(map(str, files)), context=chosen, client_configuration=configuration
        )
    except (ConfigException, OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise Unreadable(
            f"the kubeconfig cannot be used: {error} (check --kubeconfig and --context)"
        ) from error
    return Target(configuration, loader.current_context["context"].get("namespace") or "default")


def _files(kubeconfig: str | None) -> Sequence[Path]:
    """Return the kubeconfig files that exist. Raises Unreadable if a named one does not."""
    named = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    paths = [Path(part).expanduser() for part in named.split(os.pathsep) if part]
    found = [path for path in paths if path.exists()]
    if not found and (kubeconfig or "KUBERNETES_SERVICE_HOST" not in os.environ):
        raise Unreadable(f"no kubeconfig at {named} (set KUBECONFIG, or give --kubeconfig FILE)")
    return found


def _current_context(files: Sequence[Path]) -> str:
    """Return the first current-context of the files, as kubectl does. The client library takes the last."""
    for path in files:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        if name := (content or {}).get("current-context"):
            return str(name)
    raise Unreadable("the kubeconfig has no current-context (give --context NAME)")
