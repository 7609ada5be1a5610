"""The agent's pod: what it can access on its node, with a reason for each privilege.

The reasons are also annotations of the pod, for reviewers of a running cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from noderuntime_operator.api.names import GROUP
from noderuntime_operator.settings import AgentSettings

PORT = 8081
_TOKEN_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a directory, not a secret


@dataclass(frozen=True)
class HostMount:
    """A host directory that the agent's pod mounts, and the reason."""

    name: str
    path: str
    kind: str
    read_only: bool
    reason: str
    target: str = ""

    @property
    def volume(self) -> dict[str, Any]:
        """The pod's volume."""
        return {"name": self.name, "hostPath": {"path": self.path, "type": self.kind}}

    @property
    def mount(self) -> dict[str, Any]:
        """The container's mount, below /host because the image has its own /opt/noderuntime."""
        return {
            "name": self.name,
            "mountPath": self.target or f"/host{self.path}",
            "readOnly": self.read_only,
        }


HOST_MOUNTS = (
    HostMount(
        "bundle",
        "/opt/noderuntime",
        "DirectoryOrCreate",
        False,
        "installs the bundle: versions and the current link",
    ),
    HostMount(
        "config",
        "/etc/noderuntime",
        "DirectoryOrCreate",
        False,
        "writes the daemon's and the switch's configuration",
    ),
    HostMount("units", "/etc/systemd/system", "Directory", False, "writes the host service's unit files"),
    HostMount(
        "dbus",
        "/run/dbus",
        "Directory",
        True,
        "reloads and starts these units through systemctl and the system bus",
        target="/run/dbus",
    ),
    HostMount(
        "run",
        "/run/noderuntime",
        "DirectoryOrCreate",
        True,
        "runs a canary sandbox of each handler through the CRI socket",
    ),
    HostMount(
        "state",
        "/var/lib/noderuntime",
        "DirectoryOrCreate",
        True,
        "reads the results of the kubelet's switch",
    ),
)

SECURITY_CONTEXT: dict[str, Any] = {
    # systemd and the CRI socket (mode 0600) accept only uid 0; it has no capability here.
    "runAsUser": 0,
    "runAsGroup": 0,
    "privileged": False,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
_UID_REASON = "uid 0 without capabilities: systemd and the CRI socket accept no other uid"


def agent_pod(labels: dict[str, str], node_selector: dict[str, str], agent: AgentSettings) -> dict[str, Any]:
    """Return the pod template of the agents."""
    reasons = {f"why.{GROUP}/{mount.name}": f"{mount.path}: {mount.reason}" for mount in HOST_MOUNTS}
    return {
        "metadata": {"labels": labels, "annotations": {**reasons, f"why.{GROUP}/root": _UID_REASON}},
        "spec": {
            "nodeSelector": node_selector,
            # The agent tolerates all taints, because the node's pods depend on it.
            "tolerations": [{"operator": "Exists"}],
            "priorityClassName": agent.priority_class,
            "serviceAccountName": agent.service_account,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 10,
            "imagePullSecrets": [{"name": name} for name in agent.image_pull_secrets],
            "containers": [_container(agent)],
            "volumes": [
                *(mount.volume for mount in HOST_MOUNTS),
                {"name": "token", "projected": {"sources": _token_sources(), "defaultMode": 0o400}},
                {"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}},
            ],
        },
    }


def _container(agent: AgentSettings) -> dict[str, Any]:
    return {
        "name": "agent",
        "image": agent.image,
        "imagePullPolicy": agent.image_pull_policy,
        "command": ["/opt/noderuntime/bundle/bin/noderuntime", "agent"],
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "NODERUNTIME_IMAGE", "value": agent.image},
        ],
        "ports": [{"name": "health", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": _probe("/readyz", period=5, failures=3),
        "livenessProbe": _probe("/healthz", period=20, failures=6),
        "resources": agent.resources,
        "securityContext": SECURITY_CONTEXT,
        "volumeMounts": [
            *(mount.mount for mount in HOST_MOUNTS),
            {"name": "token", "mountPath": _TOKEN_DIR, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir of the pod
        ],
    }


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "health"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _token_sources() -> list[dict[str, Any]]:
    """Return the sources of a token that names its node (for the admission policy) and lasts an hour."""
    namespace = {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
    return [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]
