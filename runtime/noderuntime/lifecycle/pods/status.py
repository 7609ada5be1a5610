"""PodSandboxStatus, from memory."""

from __future__ import annotations

import json
import time

from google.protobuf.json_format import MessageToDict

from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.pod import cgroup_of, namespaces_of
from noderuntime.lifecycle.containers.status import describe as describe_container
from noderuntime.lifecycle.ledger.records import Sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.pods.state import state_of


def pod_sandbox_status(
    parts: Parts, sandbox_id: str, *, verbose: bool = False
) -> api_pb2.PodSandboxStatusResponse:
    """Return the status of a sandbox (CRI PodSandboxStatus). Verbose adds process and namespaces as JSON."""
    sandbox = parts.ledger.sandboxes.get(sandbox_id)
    containers = [c for c in parts.ledger.containers.of(sandbox.id) if c.visible]
    response = api_pb2.PodSandboxStatusResponse(
        status=describe(sandbox),
        containers_statuses=[describe_container(container) for container in containers],
        timestamp=time.time_ns(),
    )
    if verbose:
        response.info["info"] = json.dumps(
            {
                "pid": sandbox.root.pid if sandbox.root else 0,
                "runtimeHandler": sandbox.handler,
                "cgroup": cgroup_of(parts, sandbox),
                "namespaces": namespaces_of(parts, sandbox),
                "overhead": MessageToDict(sandbox.config.linux.overhead),
                "resources": MessageToDict(sandbox.config.linux.resources),
            }
        )
    return response


def describe(sandbox: Sandbox) -> api_pb2.PodSandboxStatus:
    """Return the CRI status of a sandbox. It has addresses only while it is ready."""
    config = sandbox.config
    options = config.linux.security_context.namespace_options
    ips = sandbox.ips if sandbox.ready else ()
    return api_pb2.PodSandboxStatus(
        id=sandbox.id,
        metadata=config.metadata,
        state=state_of(sandbox),
        created_at=sandbox.created_at,
        network=api_pb2.PodSandboxNetworkStatus(
            ip=ips[0] if ips else "", additional_ips=[api_pb2.PodIP(ip=ip) for ip in ips[1:]]
        ),
        linux=api_pb2.LinuxPodSandboxStatus(namespaces=api_pb2.Namespace(options=options)),
        labels=config.labels,
        annotations=config.annotations,
        runtime_handler=sandbox.handler,
    )
