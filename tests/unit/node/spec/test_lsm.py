from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.images.base import ImageConfig
from noderuntime.node.host.apparmor import AppArmor
from noderuntime.node.spec.builder import container_spec, exec_process
from noderuntime.node.spec.facts import HostFacts
from noderuntime.node.spec.inputs import ContainerInput, Pod
from noderuntime.node.spec.lsm import apparmor_profile, check_selinux
from noderuntime.node.spec.profiles import requested_seccomp

Context = api_pb2.LinuxContainerSecurityContext
DEFAULT, UNCONFINED, LOCALHOST = 0, 1, 2


@pytest.fixture
def confining(facts: HostFacts, tmp_path: Path) -> HostFacts:
    profiles = tmp_path / "profiles"
    profiles.write_text("noderuntime-default (enforce)\n/usr/bin/man (enforce)\nmine (complain)\n")
    return dataclasses.replace(facts, apparmor=AppArmor(profiles=profiles))


@pytest.mark.parametrize(
    ("context", "profile"),
    [
        ({}, "noderuntime-default"),
        ({"privileged": True}, ""),
        ({"apparmor": {"profile_type": DEFAULT}}, "noderuntime-default"),
        ({"apparmor": {"profile_type": DEFAULT}, "privileged": True}, ""),
        ({"apparmor": {"profile_type": UNCONFINED}}, ""),
        ({"apparmor": {"profile_type": LOCALHOST, "localhost_ref": "mine"}}, "mine"),
        ({"apparmor": {"profile_type": LOCALHOST, "localhost_ref": "mine"}, "privileged": True}, "mine"),
        (
            {"apparmor": {"profile_type": LOCALHOST, "localhost_ref": "localhost//usr/bin/man"}},
            "/usr/bin/man",
        ),
        ({"apparmor_profile": "localhost/mine"}, "mine"),
        ({"apparmor_profile": "runtime/default"}, "noderuntime-default"),
        ({"apparmor_profile": "unconfined"}, ""),
        ({"apparmor_profile": "localhost/mine", "apparmor": {"profile_type": UNCONFINED}}, ""),
    ],
)
def test_apparmor_profile_follows_the_request(
    confining: HostFacts, context: dict[str, Any], profile: str
) -> None:
    assert apparmor_profile(Context(**context), confining) == profile


@pytest.mark.parametrize(
    "context",
    [
        {"apparmor": {"profile_type": LOCALHOST, "localhost_ref": "theirs"}},
        {"apparmor": {"profile_type": LOCALHOST, "localhost_ref": "min"}},
        {"apparmor": {"profile_type": LOCALHOST}},
        {"apparmor": {"profile_type": DEFAULT, "localhost_ref": "mine"}},
        {"apparmor": {"profile_type": LOCALHOST, "localhost_ref": "mine\0"}},
        {"apparmor_profile": "mine"},
    ],
)
def test_apparmor_profile_that_is_not_loaded_is_refused(
    confining: HostFacts, context: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgument):
        apparmor_profile(Context(**context), confining)


def test_apparmor_request_is_refused_where_it_is_disabled(facts: HostFacts) -> None:
    assert apparmor_profile(Context(), facts) == ""
    assert apparmor_profile(Context(apparmor={"profile_type": UNCONFINED}), facts) == ""
    for kind, name in ((DEFAULT, ""), (LOCALHOST, "mine")):
        with pytest.raises(InvalidArgument, match="AppArmor is disabled"):
            apparmor_profile(Context(apparmor={"profile_type": kind, "localhost_ref": name}), facts)


def test_exec_process_has_the_containers_apparmor_profile(
    pod: Pod, confining: HostFacts, rootfs: Path
) -> None:
    config = api_pb2.ContainerConfig(command=["x"])
    spec = container_spec(pod, ContainerInput("6" * 64, config, ImageConfig(), rootfs), confining)
    assert spec["process"]["apparmorProfile"] == "noderuntime-default"
    assert exec_process(spec, ["sh"])["apparmorProfile"] == "noderuntime-default"
    sentry = dataclasses.replace(pod, own_kernel=True)
    spec = container_spec(sentry, ContainerInput("6" * 64, config, ImageConfig(), rootfs), confining)
    assert "apparmorProfile" not in spec["process"]


def test_deprecated_seccomp_profile_paths_are_supported() -> None:
    assert requested_seccomp(Context()) is None
    for text, kind, name in (
        ("unconfined", UNCONFINED, ""),
        ("docker/default", DEFAULT, ""),
        ("runtime/default", DEFAULT, ""),
        ("localhost//profiles/x.json", LOCALHOST, "/profiles/x.json"),
    ):
        requested = requested_seccomp(Context(seccomp_profile_path=text))
        assert requested is not None
        assert (requested.profile_type, requested.localhost_ref) == (kind, name)
    with pytest.raises(InvalidArgument, match="is unknown"):
        requested_seccomp(Context(seccomp_profile_path="/x.json"))
    both = requested_seccomp(Context(seccomp_profile_path="unconfined", seccomp={"profile_type": DEFAULT}))
    assert both is not None
    assert both.profile_type == DEFAULT, "the current field takes precedence"


@pytest.mark.parametrize("level", ["", "s0", "s0:c1,c2", "s0-s1:c0.c1023", "s0:c123.c456,c7"])
def test_selinux_level_is_accepted(level: str) -> None:
    check_selinux(api_pb2.SELinuxOption(level=level))


@pytest.mark.parametrize("level", ["x", "s0:c1;", "s0:c12345", "s0\ns0", "c1", "s0:"])
def test_malformed_selinux_level_is_refused(level: str) -> None:
    with pytest.raises(InvalidArgument, match="SELinux level"):
        check_selinux(api_pb2.SELinuxOption(level=level))
