from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noderuntime_operator.crdgen import RESOURCES, Resource, crd, rendered, structural

ROOT = Path(__file__).parents[3]
resources = pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.plural)


def walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from walk(part, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from walk(schema[key], f"{path}[]")


@pytest.mark.parametrize("directory", ["crds", "charts/noderuntime/files/crds"])
def test_committed_crds_match_the_models(directory: str) -> None:
    files = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / directory).glob("*.yaml")}
    assert files == rendered(), "run `make crds`"


@resources
def test_schemas_are_structural(resource: Resource) -> None:
    for path, schema in walk(structural(resource.model)):
        assert not {"$ref", "$defs", "title", "const", "allOf", "oneOf"} & schema.keys(), path
        assert "type" in schema or schema.get("x-kubernetes-int-or-string"), path
        assert schema.get("default", "") is not None, path


@resources
def test_schemas_bound_strings_lists_and_maps(resource: Resource) -> None:
    for path, schema in walk(structural(resource.model)):
        if path in ("", ".apiVersion", ".kind", ".metadata"):
            continue
        kind = schema.get("type")
        if kind == "string":
            assert {"maxLength", "enum", "format"} & schema.keys(), path
        if kind == "array":
            assert "maxItems" in schema, path
        if "additionalProperties" in schema:
            assert "maxProperties" in schema, path


@resources
def test_printer_columns_refer_to_existing_fields(resource: Resource) -> None:
    schema = structural(resource.model)
    for column in crd(resource)["spec"]["versions"][0]["additionalPrinterColumns"]:
        node = schema
        for step in column["jsonPath"].split("[")[0].strip(".").split("."):
            if step == "creationTimestamp":
                break
            node = node["properties"].get(step, {})
            assert node, column["jsonPath"]
