"""kubectl with the cluster's kubeconfig, and the waits that the stories need."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.paths import tool
from harness.run import CommandError, run, wait_for

Manifest = dict[str, Any]


class Kubectl:
    """Runs kubectl as the cluster's administrator."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def __call__(self, *argv: str, stdin: str | None = None, timeout: float = 120) -> str:
        """Return kubectl's output; raise CommandError with its error message if it fails."""
        return run(tool("kubectl"), f"--kubeconfig={self.kubeconfig}", *argv, stdin=stdin, timeout=timeout)

    def apply(self, *manifests: Manifest) -> str:
        """Apply manifests given as dictionaries."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        return self("apply", "-f", "-", stdin=json.dumps(items))

    def get(self, *argv: str) -> Manifest:
        """Return an object, or a List of them, as a dictionary."""
        found: Manifest = json.loads(self("get", *argv, "-o", "json"))
        return found

    def find(self, *argv: str) -> Manifest | None:
        """Return an object, or None if neither the object nor its kind exists."""
        try:
            return self.get(*argv)
        except CommandError as error:
            if "NotFound" in error.output or "doesn't have a resource type" in error.output:
                return None
            raise

    def condition(self, kind: str, name: str, condition: str, *argv: str) -> Manifest | None:
        """Return one of an object's status conditions, or None."""
        found = self.find(kind, name, *argv)
        conditions = ((found or {}).get("status") or {}).get("conditions") or []
        return next((entry for entry in conditions if entry["type"] == condition), None)

    def wait_condition(
        self, kind: str, name: str, condition: str, *argv: str, status: str = "True", timeout: float = 120
    ) -> Manifest:
        """Wait until an object's condition has that status, and return the condition."""

        def probe() -> Manifest | None:
            seen = self.condition(kind, name, condition, *argv)
            return seen if seen is not None and seen["status"] == status else None

        return wait_for(f"{kind} {name}: {condition}={status}", probe, timeout, every=0.5)

    def wait_gone(self, kind: str, name: str, *argv: str, timeout: float = 120) -> None:
        """Wait until the object does not exist."""
        wait_for(f"{kind} {name} gone", lambda: self.find(kind, name, *argv) is None, timeout, every=0.5)

    def wait_node_ready(self, name: str, timeout: float = 90) -> None:
        """Wait until the node is Ready."""
        self.wait_condition("node", name, "Ready", timeout=timeout)

    def wait_pod_ready(self, name: str, namespace: str = "default", timeout: float = 120) -> Manifest:
        """Wait until the pod is Ready and return it; the error contains its events."""
        try:
            self.wait_condition("pod", name, "Ready", "-n", namespace, timeout=timeout)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.events(name, namespace)}") from None
        return self.get("pod", name, "-n", namespace)

    def events(self, name: str, namespace: str = "default") -> str:
        """Return the events of one object, one line each, oldest first."""
        found = self.get("events", "-n", namespace, f"--field-selector=involvedObject.name={name}")
        lines = [f"{entry['reason']}: {entry['message']}" for entry in found["items"]]
        return "\n".join(lines)

    @contextmanager
    def forwarded(self, pod: str, port: int) -> Iterator[str]:
        """Forward a pod's port; yields the local address."""
        argv = [str(tool("kubectl")), f"--kubeconfig={self.kubeconfig}", "port-forward", pod, f":{port}"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
            try:
                assert running.stdout is not None
                line = running.stdout.readline()
                found = re.search(r"127\.0\.0\.1:\d+", line)
                if found is None:
                    raise CommandError(tuple(argv), 1, line)
                yield found.group()
            finally:
                running.kill()

    def pod_exec(self, name: str, *argv: str, timeout: float = 30) -> str:
        """Run a command in a pod."""
        return self("exec", name, "--", *argv, timeout=timeout)
