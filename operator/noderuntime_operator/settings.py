"""What the chart tells the operator about the agents it makes."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from noderuntime_operator.api import Model


class AgentSettings(Model):
    """The cluster-wide half of an agent's pod; the other half comes from its NodeRuntime."""

    namespace: str
    image: str
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    service_account: str = "noderuntime-agent"
    priority_class: str = "system-node-critical"
    resources: dict[str, Any] = Field(default_factory=dict)
