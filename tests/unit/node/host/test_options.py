import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.node.host.mount import parse_options
from noderuntime.node.host.sysctl_names import is_of_interface, sysctl_path, sysctl_settings

MS_BIND, MS_REC, MS_RDONLY, MS_SLAVE = 0x1000, 0x4000, 1, 1 << 19


def test_mount_options_are_split_into_flags_and_data():
    parsed = parse_options(("nosuid", "nodev", "size=65536k", "mode=1777"))
    assert (parsed.flags, parsed.propagation, parsed.data) == (0x2 | 0x4, 0, "size=65536k,mode=1777")


def test_recursive_bind_mount_has_flags_and_propagation():
    parsed = parse_options(("rbind", "ro", "rslave"))
    assert parsed.flags == MS_BIND | MS_REC | MS_RDONLY
    assert parsed.propagation == MS_SLAVE | MS_REC


def test_later_mount_options_override_earlier_ones():
    assert parse_options(("ro", "rw", "defaults")).flags == 0


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.100/rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
        ("net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
        ("kernel.shmmax", "kernel/shmmax"),
        ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced"),
        ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
    ],
)
def test_sysctl_name_becomes_a_path(name, path):
    assert sysctl_path(name, ["net", "ipc"]) == path


@pytest.mark.parametrize(
    "name",
    [
        "kernel.core_pattern",
        "net/../kernel/core_pattern",
        "net.ipv4./..",
        "/net/ipv4/ip_forward",
        "net..ipv4",
        "",
        "vm.swappiness",
        "kernel.shmmax\n",
        "net/ipv4/" + "x/" * 3,
    ],
)
def test_sysctl_of_the_node_is_rejected(name):
    with pytest.raises(InvalidArgument):
        sysctl_path(name, ["net", "ipc"])


def test_sysctl_requires_its_namespace():
    with pytest.raises(InvalidArgument):
        sysctl_path("net.ipv4.ip_forward", ["ipc"])
    with pytest.raises(InvalidArgument):
        sysctl_path("kernel.shmmax", ["net"])


@pytest.mark.parametrize(
    ("name", "of_interface"),
    [
        ("net.ipv4.conf.eth0.rp_filter", True),
        ("net/ipv6/conf/eth0.100/accept_ra", True),
        ("net.ipv4.neigh.eth0.base_reachable_time_ms", True),
        ("net.mpls.conf.eth0.input", True),
        ("net.ipv4.conf.all.rp_filter", False),
        ("net.ipv6.conf.default.accept_ra", False),
        ("net.ipv4.conf.lo.rp_filter", False),
        ("net.ipv4.ip_local_port_range", False),
        ("kernel.shmmax", False),
    ],
)
def test_sysctls_of_an_interface_are_recognized(name, of_interface):
    assert is_of_interface(name) is of_interface


def test_later_of_two_names_of_a_sysctl_wins():
    both = {"net.ipv4.ip_forward": "0", "net/ipv4/ip_forward": "1"}
    assert sysctl_settings(["net"], both) == {"net/ipv4/ip_forward": "1"}
