"""Pins, mounts and trees with the real kernel, as root. Every test cleans up."""

import os
import subprocess
from pathlib import Path

import pytest

from noderuntime.core.errors import HostError, InvalidArgument
from noderuntime.node.host import mount as mounts
from noderuntime.node.host.base import IdRange, Mount, UserNamespace
from noderuntime.node.host.linux import LinuxHost
from noderuntime.node.host.namespaces import pin_namespaces, read_in_network_namespaces, unpin_namespaces
from noderuntime.node.host.trees import remove_tree


@pytest.fixture
def area(tmp_path):
    """Yield a directory. The test fails if a mount is left in it."""
    yield tmp_path
    left = mounted_below(tmp_path)
    for point in reversed(left):
        subprocess.run(["umount", "-l", point], check=False)
    assert not left


def mounted_below(path: Path) -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(str(path))]


def inside(pins: dict[str, Path], *command: str) -> str:
    flags = [f"--{kind}={path}" for kind, path in pins.items()]
    return subprocess.run(["nsenter", *flags, *command], check=True, capture_output=True, text=True).stdout


async def test_pinned_namespaces_are_set_up_until_unpinned(area):
    pins = {"net": area / "ns/net", "ipc": area / "ns/ipc", "uts": area / "ns/uts"}
    own = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in pins}
    await pin_namespaces(
        pins,
        hostname="pod-1",
        sysctls={"net.ipv4.ip_unprivileged_port_start": "80", "kernel.shm_rmid_forced": "1"},
    )
    assert inside(pins, "hostname").strip() == "pod-1"
    assert "LOWER_UP" in inside(pins, "ip", "link", "show", "lo")
    assert inside(pins, "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start").strip() == "80"
    assert inside(pins, "cat", "/proc/sys/kernel/shm_rmid_forced").strip() == "1"
    for kind in pins:
        assert inside(pins, "readlink", f"/proc/self/ns/{kind}").strip() != own[kind]
        assert os.readlink(f"/proc/self/ns/{kind}") == own[kind], "the daemon's own namespace stays"
    counters = await read_in_network_namespaces([pins["net"], area / "gone"], "/proc/thread-self/net/dev")
    assert list(counters) == [pins["net"]]
    assert b"lo:" in counters[pins["net"]]
    assert b"eth0" not in counters[pins["net"]]

    await unpin_namespaces(list(pins.values()))
    await unpin_namespaces(list(pins.values()))
    assert not any(path.exists() for path in pins.values())


@pytest.fixture
def user(area):
    """Return a user namespace to pin, with 65536 users and groups."""
    return UserNamespace(area / "ns/user", IdRange(0, 1_000_000, 65536), IdRange(0, 2_000_000, 65536))


async def test_a_user_namespace_owns_the_namespaces_made_with_it(area, user):
    host, pins = LinuxHost(), {"net": area / "ns/net", "ipc": area / "ns/ipc", "uts": area / "ns/uts"}
    sysctls = {"net.ipv4.ping_group_range": "0 65535", "kernel.shm_rmid_forced": "1"}
    await host.pin_namespaces(pins, hostname="pod-1", sysctls=sysctls, user=user)
    every = {"user": user.pin, **pins}
    assert inside(every, "cat", "/proc/self/uid_map").split() == ["0", "1000000", "65536"]
    assert inside(every, "cat", "/proc/self/gid_map").split() == ["0", "2000000", "65536"]
    assert inside(every, "cat", "/proc/sys/net/ipv4/ping_group_range").split() == ["0", "65535"]
    assert inside(every, "cat", "/proc/sys/kernel/shm_rmid_forced").strip() == "1"
    assert inside(every, "hostname").strip() == "pod-1"
    inside(every, "hostname", "renamed")  # only the owner may
    inside(every, "ip", "link", "set", "lo", "mtu", "1500")
    await host.unpin_namespaces([user.pin, *pins.values()])
    assert not any(path.exists() for path in every.values())


async def test_an_invalid_value_inside_leaves_no_pin(area, user):
    with pytest.raises(InvalidArgument, match="ping_group_range"):
        await LinuxHost().pin_namespaces(
            {"net": area / "ns/net"}, sysctls={"net.ipv4.ping_group_range": "0 65536"}, user=user
        )
    assert list(area.iterdir()) == []


async def test_layers_have_the_images_owners_inside(area, user):
    host = LinuxHost()
    await host.pin_namespaces({}, user=user)
    layers = [area / "some/long/way/to/the/snapshots" / str(number) / "fs" for number in range(120)]
    for number, layer in enumerate(layers):
        layer.mkdir(parents=True)
        (layer / f"layer-{number}").touch()
        os.chown(layer / f"layer-{number}", number, number + 1)
    upper, work, target = (area / name for name in ("upper", "work", "target"))
    for path in (upper, work, target):
        path.mkdir()
    options = (f"lowerdir={':'.join(map(str, layers))}", f"upperdir={upper}", f"workdir={work}")
    before = mounted_below(area)
    await host.mount(Mount("overlay", target, "overlay", options, user))
    assert mounted_below(area) == [*before, str(target)], "the mapped layers are mounted for nobody else"
    for number in (0, 1, 119):
        found = (target / f"layer-{number}").stat()
        assert (found.st_uid, found.st_gid) == (1_000_000 + number, 2_000_000 + number + 1)
    assert (target.stat().st_uid, target.stat().st_gid) == user.root
    os.chmod(target / "layer-7", 0o600)
    assert (upper / "layer-7").stat().st_uid == 1_000_007, "what is changed is copied with its owner"
    await host.unmount(target)
    await host.unpin_namespaces([user.pin])


async def test_a_mapped_mount_that_fails_leaves_nothing(area, user):
    host = LinuxHost()
    await host.pin_namespaces({}, user=user)
    for name in ("layer", "upper", "target"):
        (area / name).mkdir()
    before = mounted_below(area)
    options = (f"lowerdir={area / 'layer'}", f"upperdir={area / 'upper'}", f"workdir={area / 'none'}")
    with pytest.raises(HostError, match="mount overlay"):
        await host.mount(Mount("overlay", area / "target", "overlay", options, user))
    assert mounted_below(area) == before
    await host.unpin_namespaces([user.pin])


async def test_a_sysctl_that_the_kernel_refuses_leaves_no_pin(area):
    pins = {"net": area / "net", "uts": area / "uts"}
    with pytest.raises(InvalidArgument, match="no_such_sysctl"):
        await pin_namespaces(pins, sysctls={"net.ipv4.no_such_sysctl": "1"})
    assert list(area.iterdir()) == []


async def test_a_sysctl_of_the_node_is_rejected_up_front(area):
    with pytest.raises(InvalidArgument, match="core_pattern"):
        await pin_namespaces({"net": area / "net"}, sysctls={"kernel.core_pattern": "x"})
    assert list(area.iterdir()) == []


async def test_a_pin_that_exists_is_not_taken_over(area):
    (area / "net").write_text("somebody's")
    with pytest.raises(HostError, match="File exists"):
        await pin_namespaces({"uts": area / "uts", "net": area / "net"})
    assert [path.name for path in area.iterdir()] == ["net"]
    assert (area / "net").read_text() == "somebody's"


async def test_a_read_only_bind_keeps_the_flags_of_its_source(area):
    source, target = area / "source", area / "target"
    source.mkdir()
    target.mkdir()
    await mounts.mount(Mount("tmpfs", source, "tmpfs", ("nosuid", "nodev", "size=1m")))
    await mounts.mount(Mount(str(source), target, "", ("bind", "ro", "private")))
    with pytest.raises(OSError, match="Read-only"):
        (target / "file").write_text("x")
    (source / "file").write_text("x")
    flags = os.statvfs(target).f_flag
    assert flags & os.ST_NOSUID
    assert flags & os.ST_NODEV
    for point in (target, source):
        await mounts.unmount(point)


async def test_unmount_removes_stacked_mounts_and_is_idempotent(area):
    target = area / "target"
    target.mkdir()
    for _ in range(2):
        await mounts.mount(Mount("tmpfs", target, "tmpfs", ("size=1m",)))
    await mounts.unmount(target)
    assert mounted_below(area) == []
    await mounts.unmount(target)
    await mounts.unmount(area / "never")


async def test_unmount_does_not_follow_a_link(area):
    target, link = area / "target", area / "link"
    target.mkdir()
    link.symlink_to(target)
    await mounts.mount(Mount("tmpfs", target, "tmpfs"))
    await mounts.unmount(link)
    assert mounted_below(area) == [str(target)]
    await mounts.unmount(target)


async def test_a_failed_mount_is_one_clear_error(area):
    (area / "target").mkdir()
    with pytest.raises(HostError, match=r"mount nosuchfs at .*target.*errno 19"):
        await mounts.mount(Mount("x", area / "target", "nosuchfs"))


async def test_more_layers_fit_than_in_one_page_of_options(area, tmp_path_factory):
    where = os.getcwd()
    layers = [area / "some/long/way/to/the/snapshots" / str(number) / "fs" for number in range(120)]
    for number, layer in enumerate(layers):
        layer.mkdir(parents=True)
        (layer / f"layer-{number}").touch()
    upper, work, target = (area / name for name in ("upper", "work", "target"))
    for path in (upper, work, target):
        path.mkdir()
    options = (f"lowerdir={':'.join(map(str, layers))}", f"upperdir={upper}", f"workdir={work}")
    assert len(",".join(options)) > 4096
    await mounts.mount(Mount("overlay", target, "overlay", options))
    assert len(list(target.iterdir())) == 120
    assert os.getcwd() == where
    await mounts.unmount(target)


async def test_remove_tree_does_not_follow_symlinks(area):
    outside, tree = area / "outside", area / "tree"
    outside.mkdir()
    (outside / "kept").touch()
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/file").touch()
    (tree / "a/to-outside").symlink_to(outside)
    (tree / "a/b").chmod(0)
    await remove_tree(tree)
    assert not tree.exists()
    assert (outside / "kept").exists()
    await remove_tree(tree)
    await remove_tree(area / "no/such/parent")


async def test_remove_tree_removes_a_symlink_in_its_place(area):
    (area / "outside").mkdir()
    (area / "outside/kept").touch()
    (area / "tree").symlink_to(area / "outside")
    await remove_tree(area / "tree")
    assert not (area / "tree").is_symlink()
    assert (area / "outside/kept").exists()


@pytest.mark.parametrize("kind", ["bind of the same filesystem", "another filesystem", "a file"])
async def test_remove_tree_stops_at_a_mount(area, kind):
    precious, tree = area / "precious", area / "tree"
    precious.mkdir()
    (precious / "kept").touch()
    point = tree / "deep/mounted"
    if kind == "a file":
        point.parent.mkdir(parents=True)
        point.touch()
        await mounts.mount(Mount(str(precious / "kept"), point, "", ("bind",)))
    else:
        point.mkdir(parents=True)
        tmpfs = kind == "another filesystem"
        await mounts.mount(
            Mount("tmpfs", point, "tmpfs") if tmpfs else Mount(str(precious), point, "", ("bind",))
        )
    with pytest.raises(HostError) as caught:
        await remove_tree(tree)
    assert caught.value.errno == 16
    assert (precious / "kept").exists()
    await mounts.unmount(point)
    await remove_tree(tree)
    assert not tree.exists()
