"""Builders of short manifests."""

from __future__ import annotations

from harness.kubectl import Manifest

IMAGE = "registry.k8s.io/busybox:1.35"
SLEEP = "exec sleep 1000"
SERVE = "mkdir -p /www; hostname > /www/index.html; exec httpd -f -h /www -p 80"
CLASSES = (None, "gvisor")
"""The RuntimeClasses of most tests: none (runc) and gVisor."""


def named(name: str, runtime: str | None) -> str:
    """Return the name of a workload in a RuntimeClass."""
    return f"{name}-{runtime or 'runc'}"


def variants(name: str) -> dict[str, str | None]:
    """Return a workload's name per RuntimeClass, for tests that run the variants side by side."""
    return {named(name, runtime): runtime for runtime in CLASSES}


def container(name: str, script: str, **fields: object) -> Manifest:
    """Return a container that runs a shell script."""
    return {"name": name, "image": IMAGE, "command": ["sh", "-c", script], **fields}


def spec(*containers: Manifest, runtime: str | None = None, **fields: object) -> Manifest:
    """Return a pod's spec without a termination grace period."""
    found: Manifest = {"containers": list(containers), "terminationGracePeriodSeconds": 1, **fields}
    return found | ({"runtimeClassName": runtime} if runtime else {})


def pod(name: str, *containers: Manifest, runtime: str | None = None, **fields: object) -> Manifest:
    """Return a pod with the label app=<name>."""
    template = _template(name, spec(*containers, runtime=runtime, **fields))
    return {"apiVersion": "v1", "kind": "Pod", **template}


def once(name: str, script: str, runtime: str | None = None, **fields: object) -> Manifest:
    """Return a pod of one container that runs to its end."""
    return pod(name, container("main", script), runtime=runtime, restartPolicy="Never", **fields)


def deployment(name: str, replicas: int, of: Manifest) -> Manifest:
    """Return a Deployment whose updates keep all replicas ready."""
    surge = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    return _set("Deployment", name) | {
        "spec": {"replicas": replicas, "strategy": surge, **_selection(name, of)}
    }


def stateful_set(name: str, replicas: int, of: Manifest) -> Manifest:
    """Return a StatefulSet whose pods start in order."""
    return _set("StatefulSet", name) | {
        "spec": {"replicas": replicas, "serviceName": name, **_selection(name, of)}
    }


def job(name: str, of: Manifest, **fields: object) -> Manifest:
    """Return a Job."""
    template = _template(name, of | {"restartPolicy": "Never"})
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"template": template, **fields},
    }  # fmt: skip


def service(name: str) -> Manifest:
    """Return a Service for port 80 of the pods with the label app=<name>."""
    ports = [{"port": 80}]
    return _object("Service", name) | {"spec": {"selector": {"app": name}, "ports": ports}}


def config_map(name: str, **data: str) -> Manifest:
    """Return a ConfigMap."""
    return _object("ConfigMap", name) | {"data": data}


def secret(name: str, **data: str) -> Manifest:
    """Return a Secret."""
    return _object("Secret", name) | {"stringData": data}


def runtime_class(name: str) -> Manifest:
    """Return the RuntimeClass named after its handler."""
    return {
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": name,
    }  # fmt: skip


def _object(kind: str, name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}


def _set(kind: str, name: str) -> Manifest:
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}}


def _selection(name: str, of: Manifest) -> Manifest:
    return {"selector": {"matchLabels": {"app": name}}, "template": _template(name, of)}


def _template(name: str, of: Manifest) -> Manifest:
    return {"metadata": {"name": name, "labels": {"app": name}}, "spec": of}
