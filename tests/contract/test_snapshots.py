"""The snapshotter's contract (snapshots/base.py) on this kernel's overlayfs."""

import os
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from noderuntime.core.errors import HostError, InvalidArgument, NotFound, ResourceExhausted
from noderuntime.core.ids import new_id
from noderuntime.node.host.linux import LinuxHost
from noderuntime.node.host.mount import detach
from noderuntime.node.snapshots.overlay import Overlay

OPAQUE = "trusted.overlay.opaque"


@pytest.fixture
def area():
    directory = Path(tempfile.mkdtemp(prefix="noderuntime-snapshots-"))
    yield directory
    for mount in mounts(directory):
        detach(mount)
    subprocess.run(["rm", "-rf", directory], check=True)


def mounts(area):
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if f"{area}/" in line]


@pytest.fixture
def overlay(area):
    return Overlay(LinuxHost(), area / "images")


@pytest.fixture
def target(area):
    path = area / "target"
    path.mkdir()
    return path


async def layer(overlay, number, files, parents=(), implied=()):
    staged = await overlay.stage()
    for name, content in files.items():
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).write_bytes(content)
    await overlay.commit(staged, number, parents, implied)
    return number


async def test_a_container_writes_to_its_own_directory_only(overlay, area, target):
    await layer(overlay, 1, {"a": b"lower", "only": b"here"})
    await layer(overlay, 2, {"a": b"upper"}, [1])
    key, other = new_id(), new_id()
    await overlay.prepare(key, [2, 1], target)
    assert ((target / "a").read_bytes(), (target / "only").read_bytes()) == (b"upper", b"here")
    (target / "a").write_bytes(b"changed")
    elsewhere = area / "elsewhere"
    elsewhere.mkdir()
    await overlay.prepare(other, [2, 1], elsewhere)
    assert (elsewhere / "a").read_bytes() == b"upper"
    assert overlay.find() == ({1, 2}, {key, other})
    await overlay.release(key, target)
    await overlay.release(key, target)
    await overlay.release(other, elsewhere)
    assert overlay.find().snapshots == frozenset()
    assert mounts(area) == []


async def test_writes_of_a_container_are_not_synced(overlay, target):
    await layer(overlay, 1, {"a": b""})
    await overlay.prepare("key", [1], target)
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    [mounted] = [line for line in lines if str(target) in line]
    assert "volatile" in mounted.split()[-1]
    await overlay.release("key", target)


@pytest.mark.parametrize("count", [101, 128, 500])
async def test_more_layers_are_mounted_than_fit_in_a_page(overlay, target, count):
    for number in range(1, count + 1):
        await layer(overlay, number, {"top": str(number).encode(), f"of-{number}": b""})
    key = new_id()
    await overlay.prepare(key, list(range(count, 0, -1)), target)
    assert (target / "top").read_text() == str(count)
    assert len(list(target.iterdir())) == count + 1
    await overlay.release(key, target)


async def test_too_many_layers_are_an_error(overlay, area, target):
    await layer(overlay, 1, {})
    with pytest.raises(HostError, match="mount overlay"):
        await overlay.prepare("key", [1] * 2500, target)
    await overlay.release("key", target)
    assert mounts(area) == []


async def test_a_snapshot_without_layers_is_an_empty_directory(overlay, target):
    await overlay.prepare("key", [], target)
    (target / "file").touch()
    assert (await overlay.usage("key")).inodes == 2
    await overlay.release("key", target)
    assert list(target.iterdir()) == []


async def test_the_root_has_the_images_owner_and_mode(overlay, target):
    staged = await overlay.stage()
    os.chown(staged, 7, 8)
    staged.chmod(0o700)
    await overlay.commit(staged, 1, [], [])
    await overlay.prepare("key", [1], target)
    looks = target.stat()
    assert (looks.st_uid, looks.st_gid, stat.S_IMODE(looks.st_mode)) == (7, 8, 0o755)
    await overlay.release("key", target)


async def test_a_view_shows_the_layers_read_only(overlay, area, target):
    await layer(overlay, 1, {"dir/a": b"lower", "gone": b""})
    staged = await overlay.stage()
    os.mknod(staged / "gone", stat.S_IFCHR, 0)
    await overlay.commit(staged, 2, [1], [])
    assert await overlay.view([2, 1], target) == target
    assert [path.name for path in target.iterdir()] == ["dir"]
    with pytest.raises(OSError, match="Read-only"):
        (target / "dir/a").write_bytes(b"x")
    flags = os.statvfs(target).f_flag
    assert all(flags & one for one in (os.ST_RDONLY, os.ST_NOSUID, os.ST_NODEV))
    assert not flags & os.ST_NOEXEC, "programs in an image volume can be run"
    await overlay.unmount(target)
    await overlay.unmount(target)
    assert mounts(area) == []


async def test_a_view_of_one_layer_or_none(overlay, target):
    staged = await overlay.stage()
    os.mknod(staged / "gone", stat.S_IFCHR, 0)
    await overlay.commit(staged, 1, [], [])
    for layers in ([1], []):
        await overlay.view(layers, target)
        assert list(target.iterdir()) == []
        with pytest.raises(OSError, match="Read-only"):
            (target / "new").touch()
        await overlay.unmount(target)


async def test_a_path_into_a_view_stays_inside(overlay, area, target):
    staged = await overlay.stage()
    (staged / "etc").mkdir()
    (staged / "etc/passwd").write_bytes(b"the image's")
    (staged / "out").symlink_to("/etc")
    (staged / "up").symlink_to("../../../../../../etc/passwd")
    await overlay.commit(staged, 1, [], [])
    for path in ("out/passwd", "up", "etc/../out/passwd", "/etc/passwd"):
        found = await overlay.view([1], target, path)
        assert found == target / "etc/passwd"
        assert found.read_bytes() == b"the image's"
        await overlay.unmount(target)
    with pytest.raises(NotFound, match="path 'none' does not exist in the image"):
        await overlay.view([1], target, "none")
    await overlay.unmount(target)
    assert mounts(area) == []


async def test_usage_counts_what_was_written_and_linked_files_once(overlay, area, target):
    await layer(overlay, 1, {"big": b"x" * 100_000})
    await overlay.prepare("key", [1], target)
    before = await overlay.usage("key")
    (target / "file").write_bytes(b"x" * 1_000_000)
    os.link(target / "file", target / "same")
    (target / "out").symlink_to(area)
    after = await overlay.usage("key")
    assert 1_000_000 <= after.bytes - before.bytes < 1_100_000
    assert after.inodes == before.inodes + 2
    assert (await overlay.layer_usage(1)).inodes == 2
    with pytest.raises(NotFound, match="snapshot other does not exist"):
        await overlay.usage("other")
    await overlay.release("key", target)


def looks(path):
    found = path.stat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode), found.st_mtime_ns // 10**9


def dress(path, owner, mode, seconds, **xattrs):
    os.chown(path, owner, owner)
    for name, value in xattrs.items():
        os.setxattr(path, f"user.{name}", value)
    path.chmod(mode)
    os.utime(path, (seconds, seconds))


async def stack(overlay, *layers):
    """Commit layers, bottom first, each made by a function that gets its directory; the last one implies."""
    for number, make in enumerate(layers, 1):
        staged = await overlay.stage()
        make(staged)
        implied = ["srv", "srv/www"] if number == len(layers) else []
        await overlay.commit(staged, number, list(range(number - 1, 0, -1)), implied)


def described(owner=5, mode=0o2750, seconds=1000, **xattrs):
    def make(staged):
        (staged / "srv/www").mkdir(parents=True)
        dress(staged / "srv/www", owner, mode, seconds, **xattrs)
        dress(staged / "srv", owner + 1, 0o711, seconds + 1)

    return make


def bare(staged):
    (staged / "srv/www").mkdir(parents=True)
    (staged / "srv/www/file").touch()


async def test_an_implied_directory_inherits_its_attributes(overlay, area):
    def without(staged):
        (staged / "other").mkdir()

    await stack(overlay, described(seconds=1), described(owner=9, note=b"kept"), without, bare)
    www = area / "images/layers/4/srv/www"
    assert looks(www) == (9, 9, 0o2750, 1000)
    assert looks(www.parent) == (10, 10, 0o711, 1001)
    assert os.getxattr(www, "user.note") == b"kept"


async def test_hidden_directories_are_not_inherited_from(overlay, area):
    def opaque(staged):
        (staged / "srv").mkdir()
        os.setxattr(staged / "srv", OPAQUE, b"y")

    def removed(staged):
        os.mknod(staged / "srv", stat.S_IFCHR, 0)

    def link(staged):
        (staged / "srv").symlink_to("/")

    for number, hiding in enumerate((opaque, removed, link)):
        root = area / str(number)
        shelf = Overlay(LinuxHost(), root)
        await stack(shelf, described(), hiding, bare)
        assert looks(root / "layers/3/srv/www")[:2] == (0, 0), hiding.__name__

    def hides_itself(staged):
        bare(staged)
        os.setxattr(staged / "srv", OPAQUE, b"y")

    await stack(overlay, described(), hides_itself)
    assert looks(area / "images/layers/2/srv/www")[:2] == (0, 0)
    assert looks(area / "images/layers/2/srv")[:2] == (6, 6), (
        "it was there before, and lost its contents only"
    )


async def test_too_many_lookups_are_rejected(overlay):
    staged = await overlay.stage()
    with pytest.raises(ResourceExhausted, match="too many directories without an entry"):
        await overlay.commit(staged, 9, list(range(1, 9)), [str(number) for number in range(300_000)])


async def test_sweep_removes_unknown_layers_and_snapshots(overlay, area):
    await layer(overlay, 1, {"a": b""})
    await layer(overlay, 2, {"b/c": b""})
    (await overlay.stage() / "half").touch()
    (area / "images/snapshots/left/fs").mkdir(parents=True)
    (area / "images/snapshots/kept/fs").mkdir(parents=True)
    await overlay.sweep({1}, {"kept"})
    assert sorted(path.name for path in (area / "images/layers").iterdir()) == ["1"]
    assert overlay.find() == ({1}, {"kept"})
    await overlay.sync()


async def test_layers_and_staged_layers_are_removed(overlay, area):
    await layer(overlay, 1, {"a/b/c": b""})
    await overlay.remove_layer(1)
    await overlay.remove_layer(1)
    staged = await overlay.stage()
    await overlay.discard(staged)
    await overlay.discard(staged)
    assert list((area / "images/layers").iterdir()) == []


async def test_a_full_disk_is_resource_exhausted(area):
    small = area / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=8", "none", small], check=True)
    overlay = Overlay(LinuxHost(), small / "images")
    for _ in range(3):
        await overlay.stage()
    with pytest.raises(ResourceExhausted, match="the disk is full"):
        await overlay.stage()


def test_a_path_unsupported_by_overlayfs_is_rejected(tmp_path):
    with pytest.raises(InvalidArgument, match="must not contain a comma, colon or backslash"):
        Overlay(LinuxHost(), tmp_path / "a:b")
