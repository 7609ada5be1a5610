"""CDI: valid and invalid files of vendors, and their edits of an OCI spec."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noderuntime.core.errors import FailedPrecondition, InvalidArgument, NoderuntimeError, NotFound
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.build import cdi_devices
from noderuntime.node.spec.cdi.catalog import Catalog, read
from noderuntime.node.spec.cdi.edits import apply

SPEC: dict[str, Any] = {
    "process": {"user": {"uid": 5, "gid": 6, "additionalGids": [6]}, "env": ["PATH=/bin", "A=image"]},
    "mounts": [{"destination": "/proc"}, {"destination": "/dev/pts"}, {"destination": "/data"}],
    "linux": {
        "namespaces": [{"type": "mount"}],
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
    },
}


def file(*devices: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"cdiVersion": "0.8.0", "kind": "vendor.example/net", "devices": list(devices)} | fields


def device(name: str = "one", **edits: Any) -> dict[str, Any]:
    return {"name": name, "containerEdits": edits or {"env": [f"DEVICE={name}"]}}


@pytest.fixture
def directories(tmp_path: Path) -> tuple[Path, Path]:
    made = tmp_path / "etc", tmp_path / "run"
    for directory in made:
        directory.mkdir()
    return made


@pytest.fixture
def catalog(directories: tuple[Path, Path]) -> Catalog:
    return Catalog([*directories, Path("/no/such/place")])


def put(directory: Path, content: dict[str, Any], name: str = "vendor.json") -> Path:
    path = directory / name
    path.write_text(json.dumps(content))
    return path


def edited(catalog: Catalog, *names: str) -> dict[str, Any]:
    spec = copy.deepcopy(SPEC)
    apply(spec, catalog.edits(names))
    return spec


def test_apply_makes_all_edits_of_a_device(catalog: Catalog, directories: tuple[Path, Path]) -> None:
    hook = {
        "hookName": "createContainer",
        "path": "/bin/true",
        "args": ["true"],
        "env": ["B=1"],
        "timeout": 5,
    }
    edits: dict[str, Any] = {
        "env": ["A=device", "NEW=x=y"],
        "deviceNodes": [{"path": "/dev/mine", "hostPath": "/dev/null", "permissions": "rw"}],
        "mounts": [
            {"hostPath": "/etc", "containerPath": "/data", "options": ["rbind", "ro"]},
            {"hostPath": "tmpfs", "containerPath": "/opt/deep/er", "type": "tmpfs", "options": ["nosuid"]},
        ],
        "hooks": [hook],
        "additionalGids": [0, 6, 44],
        "intelRdt": {"closID": "gold", "l3CacheSchema": "L3:0=f"},
    }
    put(directories[0], file(device(**edits)))
    spec = edited(catalog, "vendor.example/net=one")
    assert spec["process"]["env"] == ["PATH=/bin", "A=device", "NEW=x=y"]
    assert spec["process"]["user"]["additionalGids"] == [6, 44]
    assert spec["linux"]["devices"] == [
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "uid": 5, "gid": 6}
        | {"fileMode": os.stat("/dev/null").st_mode & 0o777}
    ]
    rule = {"allow": True, "access": "rw", "type": "c", "major": 1, "minor": 3}
    assert spec["linux"]["resources"]["devices"][-1] == rule
    assert [mount["destination"] for mount in spec["mounts"]] == [
        "/proc",
        "/data",
        "/dev/pts",
        "/opt/deep/er",
    ]
    assert spec["mounts"][1] == {"destination": "/data", "source": "/etc", "options": ["rbind", "ro"]}
    assert spec["mounts"][3]["type"] == "tmpfs"
    assert spec["hooks"] == {
        "createContainer": [{"path": "/bin/true", "args": ["true"], "env": ["B=1"], "timeout": 5}]
    }
    assert spec["linux"]["intelRdt"] == {"closID": "gold", "l3CacheSchema": "L3:0=f"}


def test_fully_described_device_need_not_exist(catalog: Catalog, directories: tuple[Path, Path]) -> None:
    node = {"path": "/dev/far", "type": "b", "major": 8, "minor": 1, "fileMode": 0o640, "uid": 0, "gid": 7}
    put(directories[0], file(device(deviceNodes=[node | {"permissions": "none"}])))
    spec = edited(catalog, "vendor.example/net=one")
    assert spec["linux"]["devices"] == [node]
    assert len(spec["linux"]["resources"]["devices"]) == 1, "no rule without permissions"


def test_edits_of_a_file_are_applied_once(catalog: Catalog, directories: tuple[Path, Path]) -> None:
    put(directories[0], file(device("a"), device("b:1"), containerEdits={"env": ["ALL=1"]}))
    found = catalog.edits(["vendor.example/net=b:1", "vendor.example/net=a", "vendor.example/net=a"])
    assert [edit.env for edit in found] == [["ALL=1"], ["DEVICE=b:1"], ["DEVICE=a"]]


def test_bind_mounts_are_id_mapped_in_a_user_namespace(
    catalog: Catalog, directories: tuple[Path, Path]
) -> None:
    mounts = [
        {"hostPath": "/etc", "containerPath": "/a", "options": ["rbind"]},
        {"hostPath": "/etc", "containerPath": "/b", "type": "bind"},
        {"hostPath": "/etc", "containerPath": "/c", "options": ["bind", "ridmap"]},
    ]
    put(directories[0], file(device(mounts=mounts)))
    spec = copy.deepcopy(SPEC)
    spec["linux"]["namespaces"].append({"type": "user", "path": "/x"})
    apply(spec, catalog.edits(["vendor.example/net=one"]))
    made = {mount["destination"]: mount.get("options") for mount in spec["mounts"]}
    assert (made["/a"], made["/b"], made["/c"]) == (["rbind", "ridmap"], ["idmap"], ["bind", "ridmap"])


def test_yaml_files_are_read(catalog: Catalog, directories: tuple[Path, Path]) -> None:
    (directories[1] / "vendor.yaml").write_text(
        '---\ncdiVersion: "0.5.0"\nkind: vendor.example/net\ndevices:\n- name: "0"\n'
        "  containerEdits:\n    env:\n    - A=yaml\n"
    )
    assert "A=yaml" in edited(catalog, "vendor.example/net=0")["process"]["env"]


def test_later_directory_takes_precedence(catalog: Catalog, directories: tuple[Path, Path]) -> None:
    name = "vendor.example/net=one"
    with pytest.raises(NotFound, match=f"no CDI device {name}$"):
        catalog.edits([name])
    put(directories[0], file(device(env=["FROM=etc"])))
    assert "FROM=etc" in edited(catalog, name)["process"]["env"]
    dynamic = put(directories[1], file(device(env=["FROM=run"])))
    assert "FROM=run" in edited(catalog, name)["process"]["env"]
    dynamic.unlink()
    assert "FROM=etc" in edited(catalog, name)["process"]["env"]


def test_device_defined_twice_is_not_found(catalog: Catalog, directories: tuple[Path, Path]) -> None:
    put(directories[0], file(device("one"), device("two")), "a.json")
    put(directories[0], file(device("one")), "b.json")
    catalog.edits(["vendor.example/net=two"])
    with pytest.raises(NotFound, match=r"is defined in .*a\.json and in .*b\.json"):
        catalog.edits(["vendor.example/net=one"])
    put(directories[1], file(device("one")), "c.json")
    catalog.edits(["vendor.example/net=one"])


def test_invalid_file_disables_only_its_own_devices(catalog: Catalog, directories: tuple[Path, Path]) -> None:
    put(directories[0], file(device("good")), "good.json")
    (directories[0] / "bad.json").write_text("{")
    os.mkfifo(directories[0] / "fifo.json")
    (directories[0] / "link.json").symlink_to("nowhere")
    (directories[0] / "directory.yaml").mkdir()
    (directories[0] / "notes.txt").write_text("ignored")
    catalog.edits(["vendor.example/net=good"])
    with pytest.raises(
        NotFound, match=r"no CDI device vendor.example/net=x; 4 errors, the first: CDI file .*bad"
    ):
        catalog.edits(["vendor.example/net=good", "vendor.example/net=x"])


@pytest.mark.parametrize(
    "name", ["", "x", "../../etc=x", "a.b/c", "a.b/c=", "a.b/c=d e", "a/b=c\n", "=", "1a/b=c"]
)
def test_invalid_device_name_is_refused(catalog: Catalog, name: str) -> None:
    with pytest.raises(InvalidArgument, match="not the name of a CDI device"):
        catalog.edits([name])


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        '"\\ud800"',
        json.dumps(file()),
        json.dumps(file(device(), cdiVersion="2.0.0")),
        json.dumps(file(device(), kind="../evil")),
        json.dumps(file(device(), surprise=1)),
        json.dumps(file(device(netDevices=[{"hostInterfaceName": "eth0", "name": "eth0"}]))),
        json.dumps(file({"name": "../x", "containerEdits": {}})),
        json.dumps(file(device(env=["=x"]))),
        json.dumps(file(device(env=["A=\0"]))),
        json.dumps(file(device(deviceNodes=[{"path": "relative"}]))),
        json.dumps(file(device(deviceNodes=[{"path": "/dev/x", "major": -1}]))),
        json.dumps(file(device(deviceNodes=[{"path": "/dev/x", "permissions": "x"}]))),
        json.dumps(file(device(mounts=[{"hostPath": "/a", "containerPath": "b"}]))),
        json.dumps(file(device(hooks=[{"hookName": "whenever", "path": "/x"}]))),
        json.dumps(file(device(hooks=[{"hookName": "prestart", "path": "x"}]))),
        json.dumps(file(device(hooks=[{"hookName": "prestart", "path": "/x", "timeout": 0}]))),
        json.dumps(file(device(intelRdt={"closID": "a/b"}))),
        json.dumps(file(device(additionalGids=[-1]))),
        "{" + " " * (1 << 20) + "}",
    ],
)
def test_invalid_file_is_refused_with_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(InvalidArgument) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"CDI file {path}: ")
    assert "\n" not in message
    assert len(message) < 600


@pytest.mark.parametrize(
    "content",
    ["a: &x [1]\nb: *x\n", "a: !!python/name:os.system\n", "[" * 50_000, "a: [", "\tx: y", "x: \x01"],
)
def test_yaml_with_aliases_or_tags_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(content)
    with pytest.raises(InvalidArgument):
        read(path)


@pytest.mark.parametrize(
    "edits",
    [
        {"deviceNodes": [{"path": "/dev/no-such-device"}]},
        {"deviceNodes": [{"path": "/dev/null", "type": "b"}]},
        {"deviceNodes": [{"path": "/etc/passwd"}]},
        {"mounts": [{"hostPath": "/no/such/place", "containerPath": "/x", "options": ["bind"]}]},
    ],
)
def test_edit_with_a_missing_device_or_mount_is_refused(
    catalog: Catalog, directories: tuple[Path, Path], edits: dict[str, Any]
) -> None:
    put(directories[0], file(device(**edits)))
    with pytest.raises(FailedPrecondition, match="CDI"):
        edited(catalog, "vendor.example/net=one")


def test_devices_are_requested_by_field_and_annotation() -> None:
    config = api_pb2.ContainerConfig(
        CDI_devices=[{"name": "v/c=2"}, {"name": "v/c=1"}, {"name": "v/c=2"}],
        annotations={"cdi.k8s.io/b": "v/c=3", "cdi.k8s.io/a": "v/c=1,v/c=4", "other": "v/c=9"},
    )
    assert cdi_devices(config) == ["v/c=2", "v/c=1", "v/c=4", "v/c=3"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_EDITS = st.fixed_dictionaries(
    {},
    optional={
        name: st.lists(_JSON, max_size=2) | _JSON
        for name in ("env", "deviceNodes", "mounts", "hooks", "additionalGids", "intelRdt")
    },
)


@given(_EDITS, _JSON)
def test_any_file_raises_no_unexpected_error(edits: Any, other: Any) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as vendor:
        json.dump(file({"name": "one", "containerEdits": edits}, containerEdits=other), vendor)
        vendor.flush()
        with contextlib.suppress(NoderuntimeError):
            apply(copy.deepcopy(SPEC), [read(Path(vendor.name)).devices[0].edits])
