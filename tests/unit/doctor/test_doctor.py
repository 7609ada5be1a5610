"""What the doctor finds, and that it says what to do."""

from __future__ import annotations

import json
import platform
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from noderuntime import cli
from noderuntime.config import (
    Config,
    HandlerConfig,
    ImagesConfig,
    NetworkConfig,
    ServerConfig,
    ToolsConfig,
    UpstreamConfig,
)
from noderuntime.doctor import disk, kernel
from noderuntime.doctor.cgroups import cgroups
from noderuntime.doctor.finding import Finding, State
from noderuntime.doctor.network import network
from noderuntime.doctor.registries import registries
from noderuntime.doctor.sockets import sockets
from noderuntime.doctor.tools import tools
from noderuntime.node.host.cgroup import Cgroups
from noderuntime.node.host.linux import LinuxHost

Script = Callable[[str, str], Path]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    def write(name: str, body: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return write


def _states(findings: list[Finding]) -> dict[str, State]:
    assert all(bool(one.advice) == (one.state is not State.OK) for one in findings)
    return {one.check: one.state for one in findings}


def test_this_kernel_has_what_it_takes() -> None:
    assert kernel.system_calls().state is State.OK


@pytest.mark.parametrize(
    ("filesystems", "module", "state"),
    [
        ("nodev\tproc\n\text4\nnodev\toverlay\n", False, State.OK),
        ("nodev\tproc\n", True, State.WARN),
        ("nodev\tproc\nnodev\toverlaynot\n", False, State.FAIL),
    ],
)
def test_overlayfs(tmp_path: Path, filesystems: str, module: bool, state: State) -> None:
    (tmp_path / "filesystems").write_text(filesystems)
    if module:
        directory = tmp_path / platform.release() / "kernel/fs/overlayfs"
        directory.mkdir(parents=True)
        (directory / "overlay.ko.xz").touch()
    assert kernel.overlayfs(proc=tmp_path, modules=tmp_path).state is state


def test_seccomp_wants_a_kernel_and_a_profile(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/seccomp").mkdir(parents=True)
    profile = tmp_path / "profile.json"
    assert _states(list(kernel.seccomp(profile, tmp_path))) == {
        "seccomp": State.FAIL,
        "seccomp profile": State.FAIL,
    }
    (tmp_path / "sys/kernel/seccomp/actions_avail").touch()
    assert _states(list(kernel.seccomp(None, tmp_path))) == {"seccomp profile": State.WARN}
    profile.write_text("{")
    assert _states(list(kernel.seccomp(profile, tmp_path))) == {"seccomp profile": State.FAIL}
    profile.write_text("{}")
    assert _states(list(kernel.seccomp(profile, tmp_path))) == {"seccomp profile": State.OK}


@pytest.mark.parametrize(("value", "state"), [("1\n", State.OK), ("0\n", State.WARN)])
def test_forwarding(tmp_path: Path, value: str, state: State) -> None:
    (tmp_path / "sys/net/ipv4").mkdir(parents=True)
    (tmp_path / "sys/net/ipv4/ip_forward").write_text(value)
    assert kernel.forwarding(tmp_path).state is state


@pytest.mark.parametrize(
    ("controllers", "state"),
    [
        ("cpuset cpu io memory hugetlb pids rdma", State.OK),
        ("cpu io memory pids", State.WARN),
        ("cpuset cpu io hugetlb pids", State.FAIL),
    ],
)
def test_cgroups_of_version_2(tmp_path: Path, controllers: str, state: State) -> None:
    (tmp_path / "cgroup.controllers").write_text(controllers)
    assert _states(list(cgroups(Cgroups(tmp_path)))) == {"cgroups": State.OK, "cgroup controllers": state}


def test_cgroups_of_version_1_work_and_are_old(tmp_path: Path) -> None:
    for name in ("cpu,cpuacct", "memory", "pids", "cpuset", "blkio", "hugetlb"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    assert _states(list(cgroups(Cgroups(tmp_path)))) == {
        "cgroups": State.WARN,
        "cgroup controllers": State.OK,
    }


def test_no_cgroups_at_all(tmp_path: Path) -> None:
    assert _states(list(cgroups(Cgroups(tmp_path)))) == {"cgroups": State.FAIL}


def _config(tmp_path: Path, **tables: object) -> Config:
    handler = HandlerConfig(type="runc", path=tmp_path / "runc")
    return Config.model_validate({"handlers": {"r": handler}, **tables})


async def test_tools_say_their_version(tmp_path: Path, script: Script) -> None:
    (tmp_path / "pause").touch(mode=0o755)
    script("runc", "echo runc version 7.7")
    config = _config(
        tmp_path,
        tools=ToolsConfig(
            conmon=script("conmon", "echo conmon version 6; echo commit: x"),
            busybox=script("busybox", "echo $2"),
            pause_rootfs=tmp_path,
        ),
    )
    found = await tools(config, LinuxHost())
    assert set(_states(found).values()) == {State.OK}
    said = {one.check: one.found for one in found}
    assert said["conmon"].endswith("/conmon: conmon version 6")
    assert said["handler r"].endswith("/runc: 7.7")


async def test_tools_that_do_not_run_are_named_with_their_words(tmp_path: Path, script: Script) -> None:
    script("runc", "echo cannot do it >&2; exit 3")
    config = _config(
        tmp_path,
        tools=ToolsConfig(
            conmon=tmp_path / "none", busybox=script("busybox", "exit 9"), pause_rootfs=tmp_path / "none"
        ),
    )
    found = await tools(config, LinuxHost())
    assert set(_states(found).values()) == {State.FAIL}
    said = {one.check: one for one in found}
    assert "none" in said["conmon"].found
    assert "tools.conmon" in said["conmon"].advice
    assert "ends with 9" in said["busybox"].found
    assert "cannot do it" in said["handler r"].found
    assert "handlers.r.path" in said["handler r"].advice


@pytest.mark.parametrize(("kind", "state"), [("runc", State.OK), ("gvisor", State.FAIL)])
async def test_gvisors_root_containers_need_a_busybox(tmp_path: Path, kind: str, state: State) -> None:
    (tmp_path / "pause").touch(mode=0o755)
    config = Config.model_validate(
        {"handlers": {"h": {"type": kind, "path": "/none"}}, "tools": {"pause_rootfs": tmp_path}}
    )
    found = {one.check: one for one in await tools(config, LinuxHost())}["pause container"]
    assert found.state is state
    assert ("busybox" in found.found) is (kind == "gvisor")


def test_the_network_wants_a_configuration_and_every_plugin(tmp_path: Path) -> None:
    settings = NetworkConfig(conf_dir=tmp_path / "net.d", plugin_dirs=(tmp_path,))
    assert _states(list(network(settings, LinuxHost()))) == {"CNI configuration": State.FAIL}
    (tmp_path / "net.d").mkdir()
    (tmp_path / "net.d/10.conflist").write_text(
        json.dumps({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "here"}, {"type": "gone"}]})
    )
    (tmp_path / "here").touch(mode=0o755)
    assert _states(list(network(settings, LinuxHost()))) == {
        "CNI configuration": State.OK,
        "CNI plugin here": State.OK,
        "CNI plugin gone": State.FAIL,
    }


async def test_sockets_that_nobody_serves(tmp_path: Path) -> None:
    config = _config(
        tmp_path,
        server=ServerConfig(socket=tmp_path / "ours.sock"),
        upstream=UpstreamConfig(socket=tmp_path / "up.sock"),
        images=ImagesConfig(containerd_socket=tmp_path / "up.sock"),
    )
    assert _states(await sockets(config)) == {"our socket": State.WARN, "upstream": State.FAIL}
    (tmp_path / "ours.sock").touch()
    assert _states(await sockets(config))["our socket"] is State.FAIL


async def test_an_image_store_of_its_own_is_tried_too(tmp_path: Path) -> None:
    config = _config(
        tmp_path,
        server=ServerConfig(socket=tmp_path / "ours.sock"),
        images=ImagesConfig(containerd_socket=tmp_path / "store.sock"),
    )
    assert _states(await sockets(config))["image store"] is State.FAIL
    with socket.socket(socket.AF_UNIX) as store:
        store.bind(str(tmp_path / "store.sock"))
        store.listen()
        assert _states(await sockets(config))["image store"] is State.OK


async def test_registries_are_read_as_for_a_pull(tmp_path: Path) -> None:
    certs, credentials = tmp_path / "certs.d", tmp_path / "auth.json"
    images = ImagesConfig(backend="native", certs_dirs=(certs, tmp_path / "none"), credentials=credentials)
    assert _states(await registries(images)) == {"registry credentials": State.WARN}
    for name in ("registry.example_5000_", "_default", "broken.example"):
        (certs / name).mkdir(parents=True)
        (certs / name / "hosts.toml").write_text('[host."https://mirror.example"]\n')
    (certs / "broken.example/hosts.toml").write_text("nonsense")
    credentials.write_text('{"auths": {}}')
    credentials.chmod(0o644)
    found = await registries(images)
    assert _states(found) == {
        "registry registry.example_5000_": State.OK,
        "registry _default": State.OK,
        "registry broken.example": State.FAIL,
        "registry credentials": State.WARN,
    }
    said = {one.check: one for one in found}
    assert said["registry registry.example_5000_"].found == "asks mirror.example, registry.example:5000"
    assert "hosts.toml" in said["registry broken.example"].found
    assert "chmod 600" in said["registry credentials"].advice
    credentials.chmod(0o600)
    assert _states(await registries(images))["registry credentials"] is State.OK
    credentials.write_text("[]")
    assert _states(await registries(images))["registry credentials"] is State.FAIL


async def test_registries_of_the_nodes_own_runtime_are_its_business(tmp_path: Path) -> None:
    assert await registries(ImagesConfig(credentials=tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("free", "state"), [(50, State.OK), (9, State.WARN), (1, State.FAIL), (0, State.FAIL)]
)
def test_room_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: State) -> None:
    facts = SimpleNamespace(f_bavail=free, f_blocks=100, f_favail=0, f_files=0)
    monkeypatch.setattr("os.statvfs", lambda path: facts)
    found = list(disk.disk(ServerConfig(state_dir=tmp_path / "not/there/yet", run_dir=tmp_path)))
    states = _states(found)
    assert states["state directory"] is states["run directory"] is state
    assert states["state directory's inodes"] is State.OK, "btrfs counts none"
    assert f"{tmp_path}: {free}%" in found[0].found


def test_a_failure_is_status_1_and_names_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[servr\x1b]\n")
    assert cli.run(["doctor", "--config", str(path)]) == 1
    out = capsys.readouterr().out
    assert any(line.startswith("fail  configuration") for line in out.splitlines())
    assert "\x1b" not in out
    assert cli.run(["doctor", "--config", str(path), "-o", "json"]) == 1
    (about,) = (
        one for one in json.loads(capsys.readouterr().out)["findings"] if one["check"] == "configuration"
    )
    assert about["state"] == "fail"
    assert about["advice"]
