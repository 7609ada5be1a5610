"""Objects that a test applies to the cluster, and their state."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from harness.cluster import Cluster
from harness.kubectl import Manifest
from harness.node import Node
from harness.run import wait_for
from story import cri

T = TypeVar("T")


class Workloads:
    """The objects of one test; ``remove`` deletes them."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        self.kubectl = cluster.kubectl
        self.cluster = cluster
        self.node = node
        self._applied: list[str] = []

    def apply(self, *manifests: Manifest) -> None:
        """Apply manifests and record them for the removal."""
        names = [f"{one['kind'].lower()}/{one['metadata']['name']}" for one in manifests]
        self._applied += [name for name in names if name not in self._applied]
        self.kubectl.apply(*manifests)

    def ready(self, *manifests: Manifest, timeout: float = 60) -> None:
        """Apply pods and wait until all of them are Ready."""
        self.apply(*manifests)
        for one in manifests:
            self.kubectl.wait_pod_ready(one["metadata"]["name"], timeout=timeout)

    def delete(self, *names: str) -> None:
        """Delete objects (``kind/name``) and wait until they do not exist."""
        self.kubectl("delete", "--ignore-not-found", *names)

    def remove(self) -> None:
        """Delete all objects without waiting."""
        if self._applied:
            self.kubectl("delete", "--ignore-not-found", "--wait=false", *reversed(self._applied))

    def pods_of(self, app: str) -> list[Manifest]:
        """Return the pods of a Deployment, StatefulSet or Job."""
        return list(self.kubectl.get("pods", "-l", f"app={app}")["items"])

    def container(self, pod: str, container: str = "", kind: str = "containerStatuses") -> dict[str, Any]:
        """Return the status of a container (default: the first); empty before it exists."""
        statuses = self.kubectl.get("pod", pod)["status"].get(kind, [])
        return next((one for one in statuses if container in ("", one["name"])), {})

    def ended(
        self, pod: str, container: str = "", kind: str = "containerStatuses", timeout: float = 60
    ) -> dict[str, Any]:
        """Wait until a container has ended and is not restarted; return its state ``terminated``."""

        def probe() -> dict[str, Any] | None:
            state: dict[str, Any] = self.container(pod, container, kind).get("state", {})
            return state.get("terminated")

        return self._wait(f"end of {pod}", pod, probe, timeout)

    def waiting(self, pod: str, reason: str, timeout: float = 60) -> str:
        """Wait until a container is waiting with that reason and return the message."""

        def probe() -> dict[str, Any] | None:
            state = self.container(pod).get("state", {}).get("waiting", {})
            return state if state.get("reason") == reason else None

        return str(self._wait(f"{pod} waiting: {reason}", pod, probe, timeout).get("message", ""))

    def restarted(self, pod: str, container: str = "", times: int = 1, timeout: float = 60) -> dict[str, Any]:
        """Wait until a container was restarted and return its status."""

        def probe() -> dict[str, Any] | None:
            status = self.container(pod, container)
            return status if status.get("restartCount", 0) >= times and "running" in status["state"] else None

        return self._wait(f"restart of {pod}", pod, probe, timeout)

    def event(self, name: str, reason: str, text: str = "", timeout: float = 60) -> str:
        """Wait for an event with that reason and text; return its message."""

        def probe() -> str | None:
            found = self.kubectl.get("events", f"--field-selector=involvedObject.name={name},reason={reason}")
            return next((one["message"] for one in found["items"] if text in one["message"]), None)

        return self._wait(f"event {reason} of {name}", name, probe, timeout)

    def log(self, pod: str, *argv: str) -> str:
        """Return a container's log from kubectl."""
        return self.kubectl("logs", pod, *argv)

    def logged(self, pod: str, text: str, *argv: str, timeout: float = 30) -> str:
        """Wait until the log contains the text and return it."""

        def probe() -> str | None:
            log = seen[0] = self.log(pod, *argv)
            return log if text in log else None

        seen = [""]
        try:
            return wait_for(f"{text!r} in the log of {pod}", probe, timeout)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{seen[0][-2000:]}") from None

    def run_in(self, pod: str, *argv: str, container: str = "") -> str:
        """Run a command in a container with CRI's ExecSync, as an exec probe does; return its output."""
        found = self.container(pod, container)["containerID"].partition("://")[2]
        return cri.exec_sync(self.node, found, *argv)

    def _wait(self, what: str, pod: str, probe: Callable[[], T | None], timeout: float) -> T:
        try:
            return wait_for(what, probe, timeout, every=0.4)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.kubectl.events(pod)}") from None


def completes(workloads: Workloads, job: str, condition: str = "Complete", timeout: float = 90) -> Manifest:
    """Wait until a Job has that condition and return its status."""
    workloads.kubectl.wait_condition("job", job, condition, timeout=timeout)
    return dict(workloads.kubectl.get("job", job)["status"])


def gone(workloads: Workloads, app: str, timeout: float = 60) -> None:
    """Wait until no pod with the label app=<app> is left."""
    wait_for(f"{app} gone", partial(_none, workloads, app), timeout, every=0.5)


def _none(workloads: Workloads, app: str) -> bool:
    return not workloads.pods_of(app)
