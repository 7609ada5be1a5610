"""Devices of third parties, from CDI files on the node, in real containers."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
from realnode.daemon import Daemon
from realnode.pods import Kubelet
from realnode.scripts import linux, said_by

from noderuntime.cri.v1 import api_pb2

DEVICE = "vendor.example/test=one"


@pytest.fixture
def vendor(daemon: Daemon, tmp_path: Path) -> Path:
    """Write a vendor's CDI file with a device that makes every change; return what its hook writes."""
    shared, written = tmp_path / "shared", tmp_path / "written"
    shared.mkdir()
    (shared / "library").write_text("of the vendor\n")
    edits = {
        "env": ["VENDOR=yes"],
        "deviceNodes": [{"path": "/dev/vendor0", "hostPath": "/dev/null", "permissions": "rw"}],
        "mounts": [{"hostPath": str(shared), "containerPath": "/vendor", "options": ["rbind", "ro"]}],
        "hooks": [
            {
                "hookName": "createRuntime",
                "path": "/bin/sh",
                "args": ["sh", "-c", f"cat >{written}"],
            }
        ],
        "additionalGids": [4711],
    }
    content = {
        "cdiVersion": "0.8.0",
        "kind": "vendor.example/test",
        "devices": [{"name": "one", "containerEdits": edits}],
    }
    (daemon.cdi / "vendor.json").write_text(json.dumps(content))
    return written


SCRIPT = """
    echo $VENDOR; cat /vendor/library; id -G; touch /vendor/x 2>/dev/null || echo fixed
    test -c /dev/vendor0 && echo x >/dev/vendor0 && echo device
"""


def test_a_cdi_device_is_added_as_specified(kubelet: Kubelet, vendor: Path) -> None:
    output = said_by(kubelet, "runc", SCRIPT, CDI_devices=[api_pb2.CDIDevice(name=DEVICE)])
    assert output == ["yes", "of the vendor", "0 4711", "fixed", "device"]
    assert json.loads(vendor.read_text())["status"] == "creating", "the hook was given the container's state"


def test_cdi_devices_are_requested_by_annotation(kubelet: Kubelet, vendor: Path) -> None:
    output = said_by(kubelet, "runc", "echo $VENDOR", annotations={"cdi.k8s.io/plugin": DEVICE})
    assert output == ["yes"]


def test_a_device_in_a_user_namespace(kubelet: Kubelet, vendor: Path) -> None:
    ids = [api_pb2.IDMapping(host_id=1_000_000, length=65536)]
    options = api_pb2.NamespaceOption(
        pid=api_pb2.CONTAINER,
        userns_options=api_pb2.UserNamespace(mode=api_pb2.POD, uids=ids, gids=ids),
    )
    context = api_pb2.LinuxSandboxSecurityContext(namespace_options=options)
    pod = kubelet.pod_config(linux=api_pb2.LinuxPodSandboxConfig(security_context=context))
    output = said_by(
        kubelet,
        "runc",
        "stat -c %u /vendor/library; echo x >/dev/vendor0 && test -c /dev/vendor0 && echo device",
        pod=pod,
        linux=linux(namespace_options=options),
        CDI_devices=[api_pb2.CDIDevice(name=DEVICE)],
    )
    assert output == ["0", "device"]


@pytest.mark.parametrize(
    ("handler", "name", "code", "words"),
    [
        (
            "runc",
            "vendor.example/test=two",
            grpc.StatusCode.NOT_FOUND,
            "no CDI device vendor.example/test=two",
        ),
        ("runc", "../../etc/passwd", grpc.StatusCode.INVALID_ARGUMENT, "not the name of a CDI device"),
        ("gvisor", DEVICE, grpc.StatusCode.INVALID_ARGUMENT, "gvisor offers no CDI devices"),
    ],
)
def test_an_unavailable_cdi_device_is_named(
    kubelet: Kubelet, vendor: Path, handler: str, name: str, code: grpc.StatusCode, words: str
) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    with pytest.raises(grpc.RpcError) as refused:
        kubelet.create(pod, config, "main", "true", CDI_devices=[api_pb2.CDIDevice(name=name)])
    assert refused.value.code() is code
    assert words in str(refused.value.details())
    assert kubelet.containers() == set()
    assert not vendor.exists()
