"""Scripts that run in a container and report what they observe."""

from __future__ import annotations

from typing import Any

from noderuntime.cri.v1 import api_pb2
from realnode.pods import Kubelet, wait_until


def linux(**context: Any) -> api_pb2.LinuxContainerConfig:
    """Return a container's Linux config with a security context."""
    return api_pb2.LinuxContainerConfig(security_context=api_pb2.LinuxContainerSecurityContext(**context))


def said_by(
    kubelet: Kubelet,
    handler: str,
    script: str,
    *,
    pod: api_pb2.PodSandboxConfig | None = None,
    fails: bool = False,
    **fields: Any,
) -> list[str]:
    """Run a script to its end in its own pod and return its output lines."""
    config = pod or kubelet.pod_config()
    sandbox = kubelet.run(config, handler)
    container = kubelet.run_container(sandbox, config, "main", script, **fields)
    wait_until(lambda: kubelet.status(container).state == api_pb2.CONTAINER_EXITED, "the script's end")
    output = kubelet.log(config, "main")
    assert (kubelet.status(container).exit_code != 0) is fails, output
    return output
