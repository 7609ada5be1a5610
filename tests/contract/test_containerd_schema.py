"""Our part of containerd's gRPC schema against the official one, field by field."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from realnode.tools import tool

from noderuntime.images.backends.containerd_api import (
    content_pb2,
    images_pb2,
    introspection_pb2,
    snapshots_pb2,
    types_pb2,
)

MODULE = "github.com/containerd/containerd/api"
VERSION = "v1.9.0"  # what containerd 2.1 speaks
OURS = (content_pb2, images_pb2, introspection_pb2, snapshots_pb2, types_pb2)
SOURCES = (
    "services/content/v1/content.proto",
    "services/images/v1/images.proto",
    "services/introspection/v1/introspection.proto",
    "services/snapshots/v1/snapshots.proto",
    "types/descriptor.proto",
    "types/mount.proto",
)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """The official files, compiled: package → messages, enums and services by name."""
    area = tmp_path_factory.mktemp("containerd-api")
    argv = [tool("go"), "mod", "download", "-json", f"{MODULE}@{VERSION}"]
    downloaded = subprocess.run(argv, cwd=area, check=True, capture_output=True, timeout=300)
    link = area / MODULE
    link.parent.mkdir(parents=True)
    link.symlink_to(json.loads(downloaded.stdout)["Dir"])
    # The one import that is not in the module; no field of ours has its type.
    (area / "google/rpc").mkdir(parents=True)
    (area / "google/rpc/status.proto").write_text('syntax = "proto3"; package google.rpc; message Status {}')
    sources = [str(Path(MODULE) / source) for source in SOURCES]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{area}", f"-o{area / 'set'}", *sources]
    subprocess.run(protoc, check=True, timeout=120)
    compiled = descriptor_pb2.FileDescriptorSet.FromString((area / "set").read_bytes())
    return [file for file in compiled.file if file.package.startswith("containerd.")]


def things(files, kind):
    """Messages (nested ones too), enums or services by full name."""
    found = {}
    for file in files:
        for thing in getattr(file, kind):
            found[f"{file.package}.{thing.name}"] = thing
            for nested in getattr(thing, "nested_type", ()):
                found[f"{file.package}.{thing.name}.{nested.name}"] = nested
    return found


@pytest.fixture(scope="module")
def ours():
    files = []
    for module in OURS:
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        files.append(file)
    return files


def shape(field):
    return (field.name, field.type, field.label, field.type_name)


def test_messages_have_the_official_fields(ours, official):
    known = things(official, "message_type")
    for name, message in things(ours, "message_type").items():
        fields = {field.number: shape(field) for field in message.field}
        official_fields = {field.number: shape(field) for field in known[name].field}
        assert fields == {number: official_fields.get(number) for number in fields}, name


def test_enums_have_the_official_values(ours, official):
    known = things(official, "enum_type")
    for name, enum in things(ours, "enum_type").items():
        values = {value.number: value.name for value in enum.value}
        assert values == {value.number: value.name for value in known[name].value}, name


def test_calls_have_the_official_types(ours, official):
    known = things(official, "service")
    for name, service in things(ours, "service").items():
        calls = {method.name: method for method in known[name].method}
        for method in service.method:
            assert method == calls[method.name], f"{name}.{method.name}"


def test_the_comparison_covers_our_whole_schema(ours):
    assert {file.package for file in ours} == {module.DESCRIPTOR.package for module in OURS}
    assert len(things(ours, "service")) == 4
