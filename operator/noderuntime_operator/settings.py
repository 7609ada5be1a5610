"""The agents' settings, which the chart passes to the operator."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from noderuntime_operator.api.base import Model


class AgentSettings(Model):
    """The cluster-wide settings of the agents' pods; the other settings come from their NodeRuntime."""

    namespace: str
    image: str
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    service_account: str = "noderuntime-agent"
    priority_class: str = "system-node-critical"
    resources: dict[str, Any] = Field(default_factory=dict)
