"""Our CRI schema against Kubernetes' own, name by name and number by number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from realnode.tools import tool

PROJECT = Path(__file__).parents[2]
OFFICIAL = "k8s.io/cri-api@v0.36.3"

Fact = tuple[str, object]


def _compile(root: Path, proto: str, target: Path) -> descriptor_pb2.FileDescriptorProto:
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{root}",
        f"--descriptor_set_out={target}",
        proto,
    ]
    subprocess.run(command, check=True, cwd=root, timeout=60)
    return descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file[0]


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> descriptor_pb2.FileDescriptorProto:
    target = tmp_path_factory.mktemp("official")
    downloaded = subprocess.run(
        [tool("go"), "mod", "download", "-json", OFFICIAL],
        check=True,
        capture_output=True,
        cwd=target,
        timeout=300,
        env={**os.environ, "GOFLAGS": "-mod=mod", "GOWORK": "off"},
    )
    root = Path(json.loads(downloaded.stdout)["Dir"])
    return _compile(root, "pkg/apis/runtime/v1/api.proto", target / "official.bin")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> descriptor_pb2.FileDescriptorProto:
    target = tmp_path_factory.mktemp("ours") / "ours.bin"
    return _compile(PROJECT / "runtime", "noderuntime/cri/v1/api.proto", target)


def _facts(file: descriptor_pb2.FileDescriptorProto) -> dict[str, object]:
    facts: dict[str, object] = {"package": file.package, "syntax": file.syntax}
    for message in file.message_type:
        facts.update(_message_facts(message, message.name))
    for enum in file.enum_type:
        facts.update(_enum_facts(enum, enum.name))
    for service in file.service:
        for call in service.method:
            facts[f"{service.name}/{call.name}"] = (
                call.input_type,
                call.output_type,
                call.client_streaming,
                call.server_streaming,
            )
    return facts


def _message_facts(message: descriptor_pb2.DescriptorProto, path: str) -> Iterator[Fact]:
    yield path, [oneof.name for oneof in message.oneof_decl]
    for field in message.field:
        yield (
            f"{path}.{field.name}",
            (
                field.number,
                field.type,
                field.type_name,
                field.label,
                field.proto3_optional,
                field.HasField("oneof_index") and field.oneof_index,
                field.options.deprecated,
            ),
        )
    for nested in message.nested_type:
        yield from _message_facts(nested, f"{path}.{nested.name}")
        yield f"{path}.{nested.name} is a map entry", nested.options.map_entry
    for enum in message.enum_type:
        yield from _enum_facts(enum, f"{path}.{enum.name}")


def _enum_facts(enum: descriptor_pb2.EnumDescriptorProto, path: str) -> Iterator[Fact]:
    for value in enum.value:
        yield f"{path}.{value.name}", value.number


def test_names_numbers_and_types_are_those_of_kubernetes(
    official: descriptor_pb2.FileDescriptorProto, ours: descriptor_pb2.FileDescriptorProto
) -> None:
    theirs = _facts(official)
    assert len(theirs) > 500
    assert _facts(ours) == theirs


def test_a_changed_field_is_detected(ours: descriptor_pb2.FileDescriptorProto) -> None:
    changed = descriptor_pb2.FileDescriptorProto.FromString(ours.SerializeToString())
    changed.message_type[0].field[0].number = 99
    assert _facts(changed) != _facts(ours)
