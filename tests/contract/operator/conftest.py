from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_plane import ControlPlane, free_port, running, stop
from release import NAMESPACE, ROOT, Operator, render
from simulated import Cluster


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A real control plane with the CRDs established."""
    with running(tmp_path_factory.mktemp("control-plane")) as control_plane:
        control_plane.kubectl("apply", "-f", str(ROOT / "crds"))
        control_plane.kubectl(
            "wait", "--for=condition=Established", "--timeout=30s", "-f", str(ROOT / "crds")
        )
        yield control_plane


@pytest.fixture(scope="session")
def installed(plane: ControlPlane) -> ControlPlane:
    """The control plane with the chart's objects, whose RBAC the operator gets."""
    plane.kubectl("create", "namespace", NAMESPACE)
    manifests = render()
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifests)
    return plane


@pytest.fixture(scope="session")
def operator(installed: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """The operator as a process, with the token of its ServiceAccount."""
    directory = tmp_path_factory.mktemp("operator")
    token = installed.kubectl("create", "token", "noderuntime-operator", "-n", NAMESPACE).strip()
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(installed.kubeconfig.read_text().replace("token: admin", f"token: {token}"))
    with running_operator(kubeconfig, NAMESPACE, directory) as started:
        yield started


@contextlib.contextmanager
def running_operator(kubeconfig: Path, namespace: str, directory: Path) -> Iterator[Operator]:
    """Run an operator whose agents are in the namespace."""
    agent = {"namespace": namespace, "image": "example.test/noderuntime:test"}
    env = {**os.environ, "KUBECONFIG": str(kubeconfig), "NODERUNTIME_AGENT": json.dumps(agent)}
    started = Operator(env, free_port(), free_port(), directory / f"{namespace}.log")
    try:
        started.start()
        yield started
    finally:
        stop(started.process)


@pytest.fixture
def other_operator(operator: Operator, installed: ControlPlane, tmp_path: Path) -> Iterator[Operator]:
    """The operator of another release in another namespace, with an administrator's rights."""
    installed.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})
    with running_operator(installed.kubeconfig, "other", tmp_path) as started:
        yield started


@pytest.fixture
def cluster(installed: ControlPlane, operator: Operator) -> Iterator[Cluster]:
    """The cluster that the operator manages; the test's objects are removed at the end."""
    made = Cluster(installed)
    yield made
    made.close()
