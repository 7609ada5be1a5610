"""What the chart installs, rendered by helm: the operator's rights, environment and memory limit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml

from harness.paths import REPO, tool
from harness.run import run
from scale.objects import NAMESPACE

Json = dict[str, Any]

_KINDS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
_MEBI = {"Mi": 1.0, "Gi": 1024.0}


@dataclass(frozen=True)
class Chart:
    """The rendered chart."""

    manifests: tuple[Json, ...]
    """Accounts and rights. The admission policies are left out: the agents' tokens here name no node."""
    environment: dict[str, str]
    memory_limit: float
    """In MiB."""

    def agent_settings(self, image: str) -> str:
        """Return the operator's settings for agents of another image."""
        return json.dumps({**json.loads(self.environment["NODERUNTIME_AGENT"]), "image": image})


def render(image: str) -> Chart:
    """Render the chart with its default values."""
    repository, _, tag = image.rpartition(":")
    values = (
        "--kube-version",
        "1.30",
        "--set",
        f"image.repository={repository}",
        "--set",
        f"image.tag={tag}",
    )
    text = run(
        tool("helm"), "template", "noderuntime", str(REPO / "charts/noderuntime"), "-n", NAMESPACE, *values
    )
    found = [document for document in yaml.safe_load_all(text) if document]
    operator = next(d for d in found if d["kind"] == "Deployment")
    container = operator["spec"]["template"]["spec"]["containers"][0]
    return Chart(
        manifests=tuple(d for d in found if d["kind"] in _KINDS),
        environment={entry["name"]: entry["value"] for entry in container["env"] if "value" in entry},
        memory_limit=_mebibytes(container["resources"]["limits"]["memory"]),
    )


def _mebibytes(quantity: str) -> float:
    return float(quantity[:-2]) * _MEBI[quantity[-2:]]
