"""The objects of a run: Nodes of a realistic size, and a NodeRuntime that selects all of them."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

NAMESPACE = "noderuntime-system"
RUNTIME = "scale"
SHARE = "scale.noderuntime.dev/share"
"""Label of a Node and its pods: the process that simulates it."""
HANDLERS = ("runc", "gvisor")
_STARTED = "2026-01-01T00:00:00Z"
_IMAGES = 30


def node_name(number: int) -> str:
    """Return the name of a Node."""
    return f"node-{number:05}.scale.example"


def node(number: int, share: int) -> Json:
    """Return a Ready Node with the labels, conditions and images of a cloud's Node."""
    name = node_name(number)
    labels = {
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "kubernetes.io/hostname": name,
        "node.kubernetes.io/instance-type": "m7.large",
        "topology.kubernetes.io/region": "eu-1",
        "topology.kubernetes.io/zone": f"eu-1{'abc'[number % 3]}",
        SHARE: str(share),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"providerID": f"cloud:///eu-1/{name}"},
        "status": _node_status(name, number),
    }


def _node_status(name: str, number: int) -> Json:
    resources = {
        "cpu": "8",
        "memory": "32785412Ki",
        "pods": "110",
        "ephemeral-storage": "101430960Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
    }
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    return {
        "conditions": node_conditions(_STARTED),
        "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
        "capacity": resources,
        "allocatable": resources,
        "nodeInfo": {
            "architecture": "amd64",
            "bootID": "5d3c5d0e-0000-4000-8000-000000000000",
            "containerRuntimeVersion": "containerd://2.1.0",
            "kernelVersion": "6.1.0-28-cloud-amd64",
            "kubeProxyVersion": "",
            "kubeletVersion": "v1.36.3",
            "machineID": "ec2d1c0e000040008000000000000000",
            "operatingSystem": "linux",
            "osImage": "Debian GNU/Linux 12 (bookworm)",
            "systemUUID": "ec2d1c0e-0000-4000-8000-000000000000",
        },
        "images": [_image(number) for number in range(_IMAGES)],
    }


def _image(number: int) -> Json:
    digest = f"{number:02x}" * 32
    repository = f"registry.example.com/platform/service-{number}"
    names = [f"{repository}@sha256:{digest}", f"{repository}:v1.{number}"]
    return {"names": names, "sizeBytes": 50_000_000 + number}


def node_conditions(heartbeat: str) -> list[Json]:
    """Return the conditions that a kubelet reports, with the time of its heartbeat."""
    kinds = (
        ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID"),
        ("Ready", "True", "KubeletReady"),
    )
    return [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": f"kubelet reports {reason}",
            "lastHeartbeatTime": heartbeat,
            "lastTransitionTime": _STARTED,
        }
        for kind, status, reason in kinds
    ]


def node_runtime(max_unavailable: int) -> Json:
    """Return the NodeRuntime that selects all Nodes."""
    return {
        "apiVersion": "noderuntime.dev/v1alpha1",
        "kind": "NodeRuntime",
        "metadata": {"name": RUNTIME},
        "spec": {
            "selector": {"matchLabels": {"kubernetes.io/os": "linux"}},
            "handlers": [{"name": "runc", "type": "Runc"}, {"name": "gvisor", "type": "GVisor"}],
            **update(max_unavailable),
        },
    }


def update(max_unavailable: int) -> Json:
    """Return the part of the spec that limits how many nodes change at a time."""
    return {"update": {"maxUnavailable": max_unavailable}}
