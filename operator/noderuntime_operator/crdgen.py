"""Generate CustomResourceDefinitions with structural schemas from the pydantic models.

A structural schema has no ``$ref``, no ``null`` alternative and no ``title``: references are
inlined, ``null`` alternatives of optional fields are removed, the rest of pydantic's schema is kept.
``python -m noderuntime_operator.crdgen`` writes ``crds/`` and the chart's copies.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from noderuntime_operator.api.base import Model
from noderuntime_operator.api.instance import NodeRuntimeInstance
from noderuntime_operator.api.names import GROUP, VERSION
from noderuntime_operator.api.noderuntime import NodeRuntime

Schema = dict[str, Any]

_DROPPED = frozenset({"title", "$defs", "additionalProperties"})
_CONDITION = ".status.conditions[?(@.type=='{}')].{}"


@dataclass(frozen=True)
class Resource:
    """A CRD's model, names and printer columns; a column is (name, type, JSONPath, priority)."""

    model: type[Model]
    plural: str
    short: str
    columns: tuple[tuple[str, str, str, int], ...]


RESOURCES = (
    Resource(
        NodeRuntime,
        "noderuntimes",
        "nr",
        (
            ("Ready", "string", _CONDITION.format("Ready", "status"), 0),
            ("Reason", "string", _CONDITION.format("Ready", "reason"), 0),
            ("Nodes", "integer", ".status.readyNodes", 0),
            ("Desired", "integer", ".status.desiredNodes", 0),
            ("Available", "string", _CONDITION.format("Available", "status"), 0),
            ("Rollout", "string", ".status.wave.phase", 0),
            ("Mode", "string", ".spec.kubelet.mode", 0),
            ("Age", "date", ".metadata.creationTimestamp", 0),
            ("Updated", "integer", ".status.wave.updated", 1),
            ("Revision", "string", ".status.updateRevision", 1),
            ("Message", "string", _CONDITION.format("Ready", "message"), 1),
        ),
    ),
    Resource(
        NodeRuntimeInstance,
        "noderuntimeinstances",
        "nri",
        (
            ("Runtime", "string", ".spec.runtimeName", 0),
            ("Phase", "string", ".status.phase", 0),
            ("Ready", "string", _CONDITION.format("Ready", "status"), 0),
            ("Kubelet", "string", ".status.kubelet.state", 0),
            ("Age", "date", ".metadata.creationTimestamp", 0),
            ("Version", "string", ".status.runtimeVersion", 1),
            ("Bundle", "string", ".status.bundleDigest", 1),
            ("Image", "string", ".spec.image", 1),
            ("Message", "string", _CONDITION.format("Ready", "message"), 1),
        ),
    ),
)


def crd(resource: Resource) -> Schema:
    """Return the CustomResourceDefinition of one resource."""
    kind = resource.model.__name__
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": resource.plural,
                "singular": kind.lower(),
                "shortNames": [resource.short],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*column) for column in resource.columns],
                    "schema": {"openAPIV3Schema": structural(resource.model)},
                }
            ],
        },
    }


def structural(model: type[Model]) -> Schema:
    """Return the model's structural schema: without references, null and titles."""
    raw = model.model_json_schema(by_alias=True)
    root = _convert(raw, raw.get("$defs", {}))
    root["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        **root["properties"],
    }
    return root


def _convert(node: Schema, definitions: Schema) -> Schema:
    """Return the structural form of a schema node and of all nodes below it."""
    node = _without_null(_inlined(node, definitions), definitions)
    result = {key: value for key, value in node.items() if key not in _DROPPED}
    if "description" in result:
        result["description"] = " ".join(str(result["description"]).split())
    if result.get("default", ...) is None:
        del result["default"]
    if "properties" in result:
        result["properties"] = {
            name: _convert(part, definitions) for name, part in node["properties"].items()
        }
    if "items" in result:
        result["items"] = _convert(node["items"], definitions)
    if isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = _convert(node["additionalProperties"], definitions)
    if "const" in result:
        result["enum"] = [result.pop("const")]
    return result


def _inlined(node: Schema, definitions: Schema) -> Schema:
    """Return the node with its reference replaced by the definition; keys beside the reference win."""
    reference = node.get("$ref")
    if reference is None:
        return node
    beside = {key: value for key, value in node.items() if key != "$ref"}
    return _inlined({**definitions[reference.rsplit("/", 1)[1]], **beside}, definitions)


def _without_null(node: Schema, definitions: Schema) -> Schema:
    """Return the schema of an optional field without its null alternative: the key can be absent instead."""
    choices = node.get("anyOf")
    if choices is None or {"type": "null"} not in choices:
        return node
    (kept,) = (choice for choice in choices if choice != {"type": "null"})
    beside = {key: value for key, value in node.items() if key != "anyOf"}
    return {**_inlined(kept, definitions), **beside}


def _column(name: str, kind: str, path: str, priority: int) -> Schema:
    return {"name": name, "type": kind, "jsonPath": path, "priority": priority}


def rendered() -> dict[str, str]:
    """Return file name → YAML of every CRD."""
    return {
        f"{GROUP}_{resource.plural}.yaml": "# Generated by noderuntime_operator.crdgen: make crds\n"
        + yaml.safe_dump(crd(resource), sort_keys=False, width=110)
        for resource in RESOURCES
    }


def main() -> None:
    """Write the CRDs to each given directory."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "directory", nargs="*", type=Path, default=[Path("crds"), Path("charts/noderuntime/files/crds")]
    )
    for directory in parser.parse_args().directory:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in rendered().items():
            (directory / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
