"""Values that no field of any request may have."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.edge.server.fields import check


def pod(**fields: object) -> api_pb2.RunPodSandboxRequest:
    return api_pb2.RunPodSandboxRequest(config=api_pb2.PodSandboxConfig(**fields))  # type: ignore[arg-type]


def container(**fields: object) -> api_pb2.CreateContainerRequest:
    return api_pb2.CreateContainerRequest(config=api_pb2.ContainerConfig(**fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (pod(hostname="a\0b"), "config.hostname contains"),
        (pod(labels={"a\0": "b"}), "config.labels contains"),
        (pod(annotations={"a": "b\0"}), "config.annotations contains"),
        (pod(dns_config={"searches": ["x", "\0"]}), "config.dns_config.searches contains"),
        (container(mounts=[{"host_path": "/x\0y"}]), "config.mounts.host_path contains"),
        (container(stop_signal=9999), "config.stop_signal: 9999 is not a value of Signal"),
        (
            container(mounts=[{"propagation": -1}]),
            "config.mounts.propagation: -1 is not a value of MountPropagation",
        ),
        (
            container(linux={"security_context": {"supplemental_groups_policy": 7}}),
            "supplemental_groups_policy: 7 is not a value of SupplementalGroupsPolicy",
        ),
        (
            pod(linux={"security_context": {"namespace_options": {"userns_options": {"mode": 8}}}}),
            "userns_options.mode: 8 is not a value of NamespaceMode",
        ),
        (
            api_pb2.ListPodSandboxRequest(filter={"state": {"state": 5}}),
            "filter.state.state: 5 is not a value of PodSandboxState",
        ),
        (api_pb2.ExecSyncRequest(cmd=["sh", "-c\0"]), "cmd contains"),
    ],
)
def test_invalid_field_is_refused_by_name(request_: Message, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check(request_)
    assert words in str(caught.value)
    assert "\0" not in str(caught.value)


def test_valid_values_pass() -> None:
    check(
        container(
            envs=[{"key": "A", "value": b"\0\xff"}],
            mounts=[{"propagation": 2, "host_path": "../..", "container_path": ""}],
            labels={"ü": "\n" * 1000},
            linux={"resources": {"cpu_shares": -1, "unified": {"a": "b"}}},
            devices=[{}],
        )
    )
