"""The pods and services of the story."""

from __future__ import annotations

from harness.kubectl import Manifest

IMAGE = "registry.k8s.io/busybox:1.35"
_SERVE = """
mkdir -p /tmp/www && echo "hello from $(hostname)" > /tmp/www/index.html
exec httpd -f -h /tmp/www -p 80
"""
# Each pod logs its kernel.
_TELL_AND_SERVE = f"""
echo "kernel $(uname -r)"
dmesg 2>/dev/null | head -n 3
{_SERVE}
"""
COUNT_AND_SERVE = f"(i=0; while sleep 0.5; do i=$((i+1)); echo $i; done) & {_SERVE}"
"""The script of a pod whose log shows whether a line is missing."""


def web_pod(name: str, runtime_class: str | None = None, script: str = _TELL_AND_SERVE) -> Manifest:
    """Return a pod, optionally with a RuntimeClass, that logs its kernel and serves HTTP on port 80."""
    container = {
        "name": "web",
        "image": IMAGE,
        "command": ["sh", "-c", script],
        "resources": {"limits": {"memory": "64Mi", "cpu": "500m"}, "requests": {"cpu": "10m"}},
    }
    spec: Manifest = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    if runtime_class is not None:
        spec["runtimeClassName"] = runtime_class
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": spec,
    }


def service(name: str) -> Manifest:
    """Return a Service for the pod of that name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
    }


def noderuntime(name: str = "noderuntime", **spec: object) -> Manifest:
    """Return a NodeRuntime with both handlers for all Linux nodes; spec overrides its fields."""
    fields: Manifest = {
        "selector": {"matchLabels": {"kubernetes.io/os": "linux"}},
        "kubelet": {"mode": "Delegate", "switchTimeoutSeconds": 60},
        "handlers": [{"name": "runc", "type": "Runc"}, {"name": "gvisor", "type": "GVisor"}],
    }
    return {
        "apiVersion": "noderuntime.dev/v1alpha1",
        "kind": "NodeRuntime",
        "metadata": {"name": name},
        "spec": fields | spec,
    }
