"""What all models of the API share: bounded types, extensions of the schema, conditions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

_DNS_LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_PERCENT = r"^(100|[1-9]?[0-9])%$"

HandlerName = Annotated[str, Field(pattern=_DNS_LABEL, max_length=63)]
ObjectName = Annotated[str, Field(pattern=_DNS_SUBDOMAIN, max_length=253)]
ShortText = Annotated[str, Field(max_length=256)]
Message = Annotated[str, Field(max_length=1024)]
Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


def _number_or_percent(minimum: int) -> WithJsonSchema:
    """Return the schema of a number, at least the minimum, or a percentage such as "10%"."""
    return WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": minimum,
            "pattern": _PERCENT if minimum == 0 else _PERCENT.replace("[1-9]?[0-9]", "[1-9][0-9]?"),
            "x-kubernetes-int-or-string": True,
        }
    )


NumberOrPercent = Annotated[int | str, _number_or_percent(0)]
PositiveOrPercent = Annotated[int | str, _number_or_percent(1)]


def list_map(*keys: str) -> dict[str, Any]:
    """Return the schema extension of a list whose items are identified by these keys."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """Return the schema extension for CEL rules: pairs of a rule and its error message."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": text} for rule, text in pairs]}


class Model(BaseModel):
    """An object of the API: camelCase in JSON. The API server prunes unknown fields."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    def dump(self) -> dict[str, Any]:
        """Return the JSON form, without unset fields."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


class Condition(Model):
    """One metav1.Condition."""

    type: Annotated[str, Field(max_length=316)]
    status: Literal["True", "False", "Unknown"]
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    last_transition_time: Timestamp
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    message: Annotated[str, Field(max_length=32768)]
