"""Label selectors, as Kubernetes has them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from noderuntime_operator.api.base import Model, rules

LabelKey = Annotated[str, Field(max_length=317)]
LabelValue = Annotated[str, Field(max_length=63)]


class SelectorRequirement(Model):
    """One term of a label selector."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0"
                " : !has(self.values) || self.values.size() == 0",
                "In and NotIn need values; Exists and DoesNotExist must not have values",
            )
        )
    )

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Annotated[list[LabelValue], Field(max_length=64)] | None = None


class LabelSelector(Model):
    """Selects nodes by their labels; a node must match both parts. The selector must not be empty."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "(has(self.matchLabels) && self.matchLabels.size() > 0)"
                " || (has(self.matchExpressions) && self.matchExpressions.size() > 0)",
                "selector is empty: give at least one label,"
                " for example matchLabels: {kubernetes.io/os: linux}",
            )
        )
    )

    match_labels: Annotated[dict[str, LabelValue], Field(max_length=32)] | None = None
    match_expressions: Annotated[list[SelectorRequirement], Field(max_length=32)] | None = None
