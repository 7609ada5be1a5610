"""RuntimeDefault in runc and crun: which system calls a container can make, tried by the calls themselves."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from realnode.pods import Kubelet
from realnode.scripts import linux, said_by

from noderuntime.cri.v1 import api_pb2

SOURCE = Path(__file__).parent / "realnode/probe.c"
NEWUSER, SIGCHLD = 0x10000000, 17
REFUSED = {
    "AF_ALG socket": (41, 38, 5),
    "AF_VSOCK socket": (41, 40, 1),
    "unshare user namespace": (272, NEWUSER),
    "keyctl": (250, 0, -3),
    "open_tree": (428, -100, 0, 0),
    "mount": (165,),
    "setns": (308, -1),
    "clone user namespace": (56, NEWUSER | SIGCHLD),
    "io_uring_setup": (425,),
    "personality without randomization": (135, 0x0040000),
}
ALLOWED = {
    "TCP socket": (41, 2, 1),
    "netlink socket": (41, 16, 3),
    "personality query": (135, 0xFFFFFFFF),
    "chmod": (90,),
    "ptrace": (101, 16, -1),
}
ALLOWED_BY_NEW_LIBSECCOMP = {
    "fchmodat2": (452, -100),
    "futex_waitv": (449,),
    "futex_wake": (454,),
    "cachestat": (451, -1),
    "mseal": (462, 1),
    "statmount": (457,),
    "listmount": (458,),
    "map_shadow_stack": (453,),
    "getxattrat": (464, -1),
}
NEWER = {"open_tree_attr": (467, -100), "an unassigned number": (4000,)}
Calls = Mapping[str, tuple[int, ...]]


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a static program that makes system calls."""
    directory = tmp_path_factory.mktemp("probe")
    subprocess.run(["gcc", "-static", "-O1", "-o", directory / "probe", SOURCE], check=True)
    return directory


def errors(
    kubelet: Kubelet,
    probe: Path,
    calls: Calls,
    profile: int,
    handler: str = "runc",
    capabilities: tuple[str, ...] = (),
) -> dict[str, int]:
    """Return the errno of each call, made in a container with a seccomp profile."""
    words = " ".join(":".join(str(value) for value in call) for call in calls.values())
    output = said_by(
        kubelet,
        handler,
        f"/probe/probe {words}",
        mounts=[api_pb2.Mount(container_path="/probe", host_path=str(probe), readonly=True)],
        linux=linux(
            seccomp=api_pb2.SecurityProfile(profile_type=profile),
            capabilities={"add_capabilities": capabilities},
        ),
    )
    return dict(zip(calls, map(int, output), strict=True))


DEFAULT, UNCONFINED = api_pb2.SecurityProfile.RuntimeDefault, api_pb2.SecurityProfile.Unconfined


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_dangerous_system_calls_are_refused(kubelet: Kubelet, probe: Path, handler: str) -> None:
    calls = {**REFUSED, "clone3": (435,)}
    expected = {**dict.fromkeys(REFUSED, errno.EPERM), "clone3": errno.ENOSYS}
    assert errors(kubelet, probe, calls, DEFAULT, handler) == expected


def test_ordinary_system_calls_reach_the_kernel(kubelet: Kubelet, probe: Path) -> None:
    calls = {**ALLOWED, **ALLOWED_BY_NEW_LIBSECCOMP}
    unfiltered = errors(kubelet, probe, calls, UNCONFINED)
    assert errors(kubelet, probe, calls, DEFAULT) == unfiltered
    assert errno.EPERM not in unfiltered.values()


def test_system_calls_newer_than_the_profile_fail_with_enosys(kubelet: Kubelet, probe: Path) -> None:
    assert errors(kubelet, probe, NEWER, DEFAULT) == dict.fromkeys(NEWER, errno.ENOSYS)


def test_a_capability_allows_its_system_calls(kubelet: Kubelet, probe: Path) -> None:
    calls = {name: REFUSED[name] for name in ("unshare user namespace", "open_tree", "mount", "setns")}
    calls = {**calls, "clone3": (435,)}
    granted = errors(kubelet, probe, calls, DEFAULT, capabilities=("SYS_ADMIN",))
    assert granted == errors(kubelet, probe, calls, UNCONFINED, capabilities=("SYS_ADMIN",))
    assert errno.EPERM not in granted.values()
    still = errors(kubelet, probe, REFUSED, DEFAULT, capabilities=("SYS_ADMIN",))
    assert still["AF_ALG socket"] == still["AF_VSOCK socket"] == still["keyctl"] == errno.EPERM
