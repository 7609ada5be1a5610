"""The doctor's findings and their advice."""

from __future__ import annotations

import asyncio
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


def test_system_calls_are_ok_on_this_kernel() -> None:
    assert kernel.system_calls().state is State.OK


@pytest.mark.parametrize(
    ("filesystems", "module", "state"),
    [
        ("nodev\tproc\n\text4\nnodev\toverlay\n", False, State.OK),
        ("nodev\tproc\n", True, State.WARN),
        ("nodev\tproc\nnodev\toverlaynot\n", False, State.FAIL),
    ],
)
def test_overlayfs_state_depends_on_kernel_and_module(
    tmp_path: Path, filesystems: str, module: bool, state: State
) -> None:
    (tmp_path / "filesystems").write_text(filesystems)
    if module:
        directory = tmp_path / platform.release() / "kernel/fs/overlayfs"
        directory.mkdir(parents=True)
        (directory / "overlay.ko.xz").touch()
    assert kernel.overlayfs(proc=tmp_path, modules=tmp_path).state is state


def test_seccomp_needs_kernel_support_and_a_profile(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/seccomp").mkdir(parents=True)
    profile = tmp_path / "profile.json"
    assert _states(list(kernel.seccomp(profile, tmp_path))) == {
        "seccomp": State.FAIL,
        "seccomp profile": State.FAIL,
    }
    (tmp_path / "sys/kernel/seccomp/actions_avail").touch()
    assert _states(list(kernel.seccomp(None, tmp_path))) == {"seccomp profile": State.OK}
    profile.write_text("{")
    assert _states(list(kernel.seccomp(profile, tmp_path))) == {"seccomp profile": State.FAIL}
    profile.write_text("{}")
    assert _states(list(kernel.seccomp(profile, tmp_path))) == {"seccomp profile": State.OK}


@pytest.mark.parametrize(("value", "state"), [("1\n", State.OK), ("0\n", State.WARN)])
def test_forwarding_warns_when_disabled(tmp_path: Path, value: str, state: State) -> None:
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
def test_cgroups_v2_require_controllers(tmp_path: Path, controllers: str, state: State) -> None:
    (tmp_path / "cgroup.controllers").write_text(controllers)
    assert _states(list(cgroups(Cgroups(tmp_path)))) == {"cgroups": State.OK, "cgroup controllers": state}


def test_cgroups_v1_warn(tmp_path: Path) -> None:
    for name in ("cpu,cpuacct", "memory", "pids", "cpuset", "blkio", "hugetlb"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    assert _states(list(cgroups(Cgroups(tmp_path)))) == {
        "cgroups": State.WARN,
        "cgroup controllers": State.OK,
    }


def test_cgroups_fail_when_not_mounted(tmp_path: Path) -> None:
    assert _states(list(cgroups(Cgroups(tmp_path)))) == {"cgroups": State.FAIL}


def _config(tmp_path: Path, **tables: object) -> Config:
    handler = HandlerConfig(type="runc", path=tmp_path / "runc")
    return Config.model_validate({"handlers": {"r": handler}, **tables})


async def test_tools_report_their_version(tmp_path: Path, script: Script) -> None:
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
    by_check = {one.check: one.found for one in found}
    assert by_check["conmon"].endswith("/conmon: conmon version 6")
    assert by_check["handler r"].endswith("/runc: 7.7")


async def test_tools_that_fail_are_named_with_their_output(tmp_path: Path, script: Script) -> None:
    script("runc", "echo cannot do it >&2; exit 3")
    config = _config(
        tmp_path,
        tools=ToolsConfig(
            conmon=tmp_path / "none", busybox=script("busybox", "exit 9"), pause_rootfs=tmp_path / "none"
        ),
    )
    found = await tools(config, LinuxHost())
    assert set(_states(found).values()) == {State.FAIL}
    by_check = {one.check: one for one in found}
    assert "none" in by_check["conmon"].found
    assert "tools.conmon" in by_check["conmon"].advice
    assert "exited with status 9" in by_check["busybox"].found
    assert "cannot do it" in by_check["handler r"].found
    assert "handlers.r.path" in by_check["handler r"].advice


async def test_handler_that_hangs_is_a_finding(
    tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noderuntime.node.executor.probes.PROBE_SECONDS", 0.2)
    script("runc", "exec sleep 60")
    async with asyncio.timeout(10):
        found = {one.check: one for one in await tools(_config(tmp_path), LinuxHost())}
    assert found["handler r"].state is State.FAIL
    assert found["handler r"].found == "handler r did not answer within 0.2 s"


@pytest.mark.parametrize(("kind", "state"), [("runc", State.OK), ("gvisor", State.FAIL)])
async def test_pause_container_of_gvisor_needs_busybox(tmp_path: Path, kind: str, state: State) -> None:
    (tmp_path / "pause").touch(mode=0o755)
    config = Config.model_validate(
        {"handlers": {"h": {"type": kind, "path": "/none"}}, "tools": {"pause_rootfs": tmp_path}}
    )
    found = {one.check: one for one in await tools(config, LinuxHost())}["pause container"]
    assert found.state is state
    assert ("busybox" in found.found) is (kind == "gvisor")


async def test_network_needs_a_configuration_and_every_plugin(tmp_path: Path) -> None:
    settings = NetworkConfig(conf_dir=tmp_path / "net.d", plugin_dirs=(tmp_path,))
    assert _states(await network(settings, LinuxHost())) == {"CNI configuration": State.FAIL}
    (tmp_path / "net.d").mkdir()
    (tmp_path / "net.d/10.conflist").write_text(
        json.dumps({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "here"}, {"type": "gone"}]})
    )
    (tmp_path / "here").touch(mode=0o755)
    assert _states(await network(settings, LinuxHost())) == {
        "CNI configuration": State.OK,
        "CNI plugin here": State.OK,
        "CNI plugin gone": State.FAIL,
    }


@pytest.mark.parametrize(
    ("script", "state", "message"),
    [
        ("exit 0", State.OK, "the plugins can attach pods"),
        (
            'echo \'{"code": 50, "msg": "agent is away"}\'; exit 1',
            State.FAIL,
            "CNI plugin p STATUS failed with exit status 1: agent is away"
            " (CNI error 50: the plugin cannot serve ADD)",
        ),
    ],
)
async def test_network_reports_the_status_of_the_plugins(
    tmp_path: Path, script: str, state: State, message: str
) -> None:
    (tmp_path / "10.conf").write_text(json.dumps({"cniVersion": "1.1.0", "name": "n", "type": "p"}))
    (tmp_path / "p").write_text(f"#!/bin/sh\n[ $CNI_COMMAND = STATUS ] || exit 9\n{script}\n")
    (tmp_path / "p").chmod(0o755)
    found = (await network(NetworkConfig(conf_dir=tmp_path, plugin_dirs=(tmp_path,)), LinuxHost()))[-1]
    assert (found.check, found.state, found.found) == ("CNI STATUS", state, message)


async def test_sockets_that_are_not_served_are_reported(tmp_path: Path) -> None:
    config = _config(
        tmp_path,
        server=ServerConfig(socket=tmp_path / "daemon.sock"),
        upstream=UpstreamConfig(socket=tmp_path / "up.sock"),
        images=ImagesConfig(containerd_socket=tmp_path / "up.sock"),
    )
    assert _states(await sockets(config)) == {"noderuntime socket": State.WARN, "upstream": State.FAIL}
    (tmp_path / "daemon.sock").touch()
    assert _states(await sockets(config))["noderuntime socket"] is State.FAIL


async def test_sockets_include_a_separate_image_store(tmp_path: Path) -> None:
    config = _config(
        tmp_path,
        server=ServerConfig(socket=tmp_path / "daemon.sock"),
        images=ImagesConfig(containerd_socket=tmp_path / "store.sock"),
    )
    assert _states(await sockets(config))["image store"] is State.FAIL
    with socket.socket(socket.AF_UNIX) as store:
        store.bind(str(tmp_path / "store.sock"))
        store.listen()
        assert _states(await sockets(config))["image store"] is State.OK


async def test_registries_report_broken_files_and_loose_modes(tmp_path: Path) -> None:
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
    by_check = {one.check: one for one in found}
    assert (
        by_check["registry registry.example_5000_"].found
        == "hosts tried in order: mirror.example, registry.example:5000"
    )
    assert "hosts.toml" in by_check["registry broken.example"].found
    assert "chmod 600" in by_check["registry credentials"].advice
    credentials.chmod(0o600)
    assert _states(await registries(images))["registry credentials"] is State.OK
    credentials.write_text('{"credsStore": "not-installed"}')
    assert _states(await registries(images))["registry credentials"] is State.OK
    credentials.write_text("[]")
    assert _states(await registries(images))["registry credentials"] is State.FAIL


async def test_registries_are_skipped_for_containerds_images(tmp_path: Path) -> None:
    assert await registries(ImagesConfig(credentials=tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("free", "state"), [(50, State.OK), (9, State.WARN), (1, State.FAIL), (0, State.FAIL)]
)
def test_disk_state_depends_on_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: State
) -> None:
    usage = SimpleNamespace(f_bavail=free, f_blocks=100, f_favail=0, f_files=0)
    monkeypatch.setattr("os.statvfs", lambda path: usage)
    found = list(disk.disk(ServerConfig(state_dir=tmp_path / "not/there/yet", run_dir=tmp_path)))
    states = _states(found)
    assert states["state directory"] is states["run directory"] is state
    assert states["state directory's inodes"] is State.OK, "btrfs reports no inode count"
    assert f"{tmp_path}: {free}%" in found[0].found


def test_doctor_exits_with_1_for_an_invalid_configuration(
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
