"""CDI: files of vendors, good and bad, and what they do to an OCI spec."""

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
from noderuntime.lifecycle.containers.devices import cdi_devices
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
def places(tmp_path: Path) -> tuple[Path, Path]:
    made = tmp_path / "etc", tmp_path / "run"
    for place in made:
        place.mkdir()
    return made


@pytest.fixture
def catalog(places: tuple[Path, Path]) -> Catalog:
    return Catalog([*places, Path("/no/such/place")])


def put(place: Path, content: dict[str, Any], name: str = "vendor.json") -> Path:
    path = place / name
    path.write_text(json.dumps(content))
    return path


def edited(catalog: Catalog, *names: str) -> dict[str, Any]:
    spec = copy.deepcopy(SPEC)
    apply(spec, catalog.edits(names))
    return spec


def test_all_that_a_device_may_change(catalog: Catalog, places: tuple[Path, Path]) -> None:
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
    put(places[0], file(device(**edits)))
    spec = edited(catalog, "vendor.example/net=one")
    assert spec["process"]["env"] == ["PATH=/bin", "A=device", "NEW=x=y"]
    assert spec["process"]["user"]["additionalGids"] == [6, 44]
    assert spec["linux"]["devices"] == [
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "uid": 5, "gid": 6}
        | {"fileMode": os.stat("/dev/null").st_mode & 0o777}
    ]
    rule = {"allow": True, "access": "rw", "type": "c", "major": 1, "minor": 3}
    assert spec["linux"]["resources"]["devices"][-1] == rule
    assert [one["destination"] for one in spec["mounts"]] == ["/proc", "/data", "/dev/pts", "/opt/deep/er"]
    assert spec["mounts"][1] == {"destination": "/data", "source": "/etc", "options": ["rbind", "ro"]}
    assert spec["mounts"][3]["type"] == "tmpfs"
    assert spec["hooks"] == {
        "createContainer": [{"path": "/bin/true", "args": ["true"], "env": ["B=1"], "timeout": 5}]
    }
    assert spec["linux"]["intelRdt"] == {"closID": "gold", "l3CacheSchema": "L3:0=f"}


def test_a_device_that_is_described_in_full_need_not_be_there(
    catalog: Catalog, places: tuple[Path, Path]
) -> None:
    node = {"path": "/dev/far", "type": "b", "major": 8, "minor": 1, "fileMode": 0o640, "uid": 0, "gid": 7}
    put(places[0], file(device(deviceNodes=[node | {"permissions": "none"}])))
    spec = edited(catalog, "vendor.example/net=one")
    assert spec["linux"]["devices"] == [node]
    assert len(spec["linux"]["resources"]["devices"]) == 1, "no permission, no rule"


def test_what_all_devices_of_a_file_need_is_done_once(catalog: Catalog, places: tuple[Path, Path]) -> None:
    put(places[0], file(device("a"), device("b:1"), containerEdits={"env": ["ALL=1"]}))
    found = catalog.edits(["vendor.example/net=b:1", "vendor.example/net=a", "vendor.example/net=a"])
    assert [one.env for one in found] == [["ALL=1"], ["DEVICE=b:1"], ["DEVICE=a"]]


def test_bind_mounts_are_mapped_in_a_user_namespace(catalog: Catalog, places: tuple[Path, Path]) -> None:
    mounts = [
        {"hostPath": "/etc", "containerPath": "/a", "options": ["rbind"]},
        {"hostPath": "/etc", "containerPath": "/b", "type": "bind"},
        {"hostPath": "/etc", "containerPath": "/c", "options": ["bind", "ridmap"]},
    ]
    put(places[0], file(device(mounts=mounts)))
    spec = copy.deepcopy(SPEC)
    spec["linux"]["namespaces"].append({"type": "user", "path": "/x"})
    apply(spec, catalog.edits(["vendor.example/net=one"]))
    made = {one["destination"]: one.get("options") for one in spec["mounts"]}
    assert (made["/a"], made["/b"], made["/c"]) == (["rbind", "ridmap"], ["idmap"], ["bind", "ridmap"])


def test_yaml_is_read_too(catalog: Catalog, places: tuple[Path, Path]) -> None:
    (places[1] / "vendor.yaml").write_text(
        '---\ncdiVersion: "0.5.0"\nkind: vendor.example/net\ndevices:\n- name: "0"\n'
        "  containerEdits:\n    env:\n    - A=yaml\n"
    )
    assert "A=yaml" in edited(catalog, "vendor.example/net=0")["process"]["env"]


def test_a_later_directory_comes_first_and_changes_are_seen(
    catalog: Catalog, places: tuple[Path, Path]
) -> None:
    name = "vendor.example/net=one"
    with pytest.raises(NotFound, match=f"no CDI device {name}$"):
        catalog.edits([name])
    put(places[0], file(device(env=["FROM=etc"])))
    assert "FROM=etc" in edited(catalog, name)["process"]["env"]
    dynamic = put(places[1], file(device(env=["FROM=run"])))
    assert "FROM=run" in edited(catalog, name)["process"]["env"]
    dynamic.unlink()
    assert "FROM=etc" in edited(catalog, name)["process"]["env"]


def test_a_device_that_is_described_twice_is_nobodys(catalog: Catalog, places: tuple[Path, Path]) -> None:
    put(places[0], file(device("one"), device("two")), "a.json")
    put(places[0], file(device("one")), "b.json")
    catalog.edits(["vendor.example/net=two"])
    with pytest.raises(NotFound, match=r"is described in .*a\.json and in .*b\.json"):
        catalog.edits(["vendor.example/net=one"])
    put(places[1], file(device("one")), "c.json")
    catalog.edits(["vendor.example/net=one"])


def test_a_bad_file_takes_only_its_own_devices_away(catalog: Catalog, places: tuple[Path, Path]) -> None:
    put(places[0], file(device("good")), "good.json")
    (places[0] / "bad.json").write_text("{")
    os.mkfifo(places[0] / "fifo.json")
    (places[0] / "link.json").symlink_to("nowhere")
    (places[0] / "directory.yaml").mkdir()
    (places[0] / "notes.txt").write_text("not for us")
    catalog.edits(["vendor.example/net=good"])
    with pytest.raises(
        NotFound, match=r"no CDI device vendor.example/net=x; 4 faults, first: CDI file .*bad"
    ):
        catalog.edits(["vendor.example/net=good", "vendor.example/net=x"])


@pytest.mark.parametrize(
    "name", ["", "x", "../../etc=x", "a.b/c", "a.b/c=", "a.b/c=d e", "a/b=c\n", "=", "1a/b=c"]
)
def test_what_is_no_name_of_a_device(catalog: Catalog, name: str) -> None:
    with pytest.raises(InvalidArgument, match="no name of a CDI device"):
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
def test_a_file_that_says_more_or_less_than_it_may_is_refused_in_one_line(
    tmp_path: Path, content: str
) -> None:
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
def test_yaml_that_does_more_than_describe_is_refused(tmp_path: Path, content: str) -> None:
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
def test_what_the_node_lacks_is_named(
    catalog: Catalog, places: tuple[Path, Path], edits: dict[str, Any]
) -> None:
    put(places[0], file(device(**edits)))
    with pytest.raises(FailedPrecondition, match="CDI"):
        edited(catalog, "vendor.example/net=one")


def test_devices_are_asked_for_by_field_and_by_annotation() -> None:
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
def test_whatever_a_file_says_ends_in_edits_or_in_an_error_of_ours(edits: Any, other: Any) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as vendor:
        json.dump(file({"name": "one", "containerEdits": edits}, containerEdits=other), vendor)
        vendor.flush()
        with contextlib.suppress(NoderuntimeError):
            apply(copy.deepcopy(SPEC), [read(Path(vendor.name)).devices[0].edits])
