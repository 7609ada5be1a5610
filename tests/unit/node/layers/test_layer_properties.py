"""Properties: valid archives are unpacked exactly, damaged ones change nothing outside the target."""

import gzip
import io
import itertools
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layer_archives import unpack

from noderuntime.core.errors import InvalidArgument, NoderuntimeError
from noderuntime.node.layers.zstandard import zstd

FUZZER = Path(__file__).parents[3] / "fuzz/fuzz_tar.py"
OFTEN = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
PACK = {"gzip": gzip.compress, "zstd": zstd.compress, "plain": bytes}
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]

WORDS = ["a", "b", "c", "ä", "with space", "n" * 24]
kinds = st.sampled_from(
    [tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.LNKTYPE]
)


@st.composite
def entries(draw, form):
    """Generate an entry and its content. Symlinks have names of their own, so that no path contains one."""
    words = WORDS if form == tarfile.USTAR_FORMAT else [*WORDS, "n" * 110]
    names = st.lists(st.sampled_from(words), min_size=1, max_size=4).map("/".join)
    info = tarfile.TarInfo(draw(names))
    info.type = draw(kinds)
    if draw(st.integers(0, 5)) == 0:
        info.name, info.type, info.linkname = f"link{draw(st.integers(0, 3))}", tarfile.SYMTYPE, draw(names)
    if info.type == tarfile.LNKTYPE:
        info.linkname = draw(names)
    info.mode = draw(st.integers(0, 0o7777))
    info.uid, info.gid = os.geteuid(), os.getegid()
    info.mtime = draw(st.integers(0, 1 << 32))
    if form == tarfile.PAX_FORMAT and draw(st.booleans()):
        info.pax_headers = {"mtime": f"{info.mtime}.{draw(st.integers(0, 10**9 - 1)):09}"}
    content = draw(st.binary(max_size=1500)) if info.type == tarfile.REGTYPE else b""
    info.size = len(content)
    return info, content


def archive_of(items, form):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for info, content in items:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class Model:
    """The expected tree of a layer after a sequence of entries."""

    def __init__(self):
        self.nodes = {}
        self._inodes = itertools.count()

    def add(self, info, content):
        """Add an entry. Return False if it is invalid."""
        name = info.name
        source = self.nodes.get(info.linkname)
        if info.type == tarfile.LNKTYPE and (source is None or source["kind"] == tarfile.DIRTYPE):
            return False
        if not self._make_parents(name):
            return False
        old = self.nodes.get(name)
        if not (old and old["kind"] == info.type == tarfile.DIRTYPE):
            self._remove(name)
        if info.type == tarfile.LNKTYPE:
            if info.linkname not in self.nodes:
                return False
            self.nodes[name] = source
        else:
            time = info.pax_headers.get("mtime", f"{info.mtime}.0")
            whole, fraction = time.split(".")
            self.nodes[name] = {
                "inode": next(self._inodes),
                "kind": info.type,
                "mode": info.mode,
                "mtime": int(whole) * 10**9 + int(fraction.ljust(9, "0")),
                "content": info.linkname if info.type == tarfile.SYMTYPE else content,
            }
        return True

    def _make_parents(self, name):
        steps = name.split("/")
        for depth in range(1, len(steps)):
            above = "/".join(steps[:depth])
            found = self.nodes.setdefault(
                above,
                {
                    "inode": next(self._inodes),
                    "kind": tarfile.DIRTYPE,
                    "mode": 0o755,
                    "mtime": 0,
                    "content": b"",
                },
            )
            if found["kind"] != tarfile.DIRTYPE:
                return False
        return True

    def _remove(self, name):
        for path in [path for path in self.nodes if path == name or path.startswith(f"{name}/")]:
            del self.nodes[path]

    def check(self, root):
        """Compare the model with a directory."""
        actual = {str(path.relative_to(root)) for path in root.rglob("*")}
        assert actual == set(self.nodes)
        inodes = {}
        for name, node in self.nodes.items():
            found = os.lstat(root / name)
            assert KINDS[node["kind"]] == stat.S_IFMT(found.st_mode), name
            assert node["kind"] == tarfile.SYMTYPE or stat.S_IMODE(found.st_mode) == node["mode"], name
            assert found.st_mtime_ns == node["mtime"], name
            assert inodes.setdefault(node["inode"], found.st_ino) == found.st_ino, name
            if node["kind"] == tarfile.REGTYPE:
                assert (root / name).read_bytes() == node["content"], name
            elif node["kind"] == tarfile.SYMTYPE:
                assert os.readlink(root / name) == node["content"], name


KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.FIFOTYPE: stat.S_IFIFO,
    tarfile.SYMTYPE: stat.S_IFLNK,
}


@pytest.mark.usefixtures("root", "target")
@pytest.mark.parametrize("form", FORMATS, ids=["ustar", "gnu", "pax"])
@OFTEN
@given(data=st.data())
def test_any_valid_archive_is_unpacked_exactly(form, data):
    """Runs as root, who can read files without permissions."""
    items = data.draw(st.lists(entries(form), max_size=12))
    pack = PACK[data.draw(st.sampled_from(sorted(PACK)))]
    with TemporaryDirectory(prefix="noderuntime-") as place:
        root = Path(place) / "layer"
        model = Model()
        if all(model.add(info, content) for info, content in items):
            unpack(pack(archive_of(items, form)), root)
            model.check(root)
        else:
            with pytest.raises(InvalidArgument):
                unpack(pack(archive_of(items, form)), root)


@pytest.mark.usefixtures("target")
@pytest.mark.parametrize("form", FORMATS, ids=["ustar", "gnu", "pax"])
@OFTEN
@given(data=st.data())
def test_any_damaged_archive_stays_in_the_target(form, data):
    layer = bytearray(archive_of(data.draw(st.lists(entries(form), min_size=1, max_size=5)), form))
    for _ in range(data.draw(st.integers(1, 5))):
        layer[data.draw(st.integers(0, min(len(layer), 6000) - 1))] = data.draw(st.integers(0, 255))
    layer = PACK[data.draw(st.sampled_from(sorted(PACK)))](bytes(layer))
    check_cage(layer[: data.draw(st.integers(len(layer) // 2, len(layer)))])


@pytest.mark.usefixtures("target")
@OFTEN
@given(layer=st.binary(max_size=2000) | st.binary(max_size=100).map(lambda rest: b"\x1f\x8b\x08\0" + rest))
def test_any_bytes_stay_in_the_target(layer):
    check_cage(layer)


def check_cage(layer):
    with TemporaryDirectory(prefix="noderuntime-") as place:
        try:
            unpack(layer, Path(place) / "layer")
        except NoderuntimeError as error:
            refusal = str(error)
        else:
            refusal = ""
        assert refusal.isprintable()
        assert os.listdir(place) == ["layer"]


def test_fuzzer_reports_no_finding():
    argv = [sys.executable, FUZZER, "--runs", "300", "--seed", "1"]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("300 layers, ")
