"""The bundle runs on a host without its dependencies: in a chroot with only the bundle."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2]
IMAGE = "localhost/noderuntime:contract"
MINE = Path("/opt/noderuntime")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a root directory with /proc, an empty /tmp and the bundle, and nothing else."""
    root = tmp_path_factory.mktemp("host")
    for name in ("proc", "tmp", "opt"):
        (root / name).mkdir()
    _image_script("build.py", "--image", IMAGE)
    _image_script("export.py", IMAGE, str(root / "opt/noderuntime"))
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    try:
        yield root
    finally:
        subprocess.run(["umount", root / "proc"], check=True)


@pytest.fixture(scope="module")
def home(host: Path) -> Path:
    """Return the bundle's directory as the host sees it."""
    return MINE / "versions" / (host / "opt/noderuntime/bundle/BUNDLE").read_text().strip()


def test_the_current_link_points_to_the_digests_version(host: Path, home: Path) -> None:
    """An agent's copy is found through one fixed path."""
    assert (host / "opt/noderuntime/bundle").readlink() == Path("versions") / home.name
    assert re.fullmatch(r"[0-9a-f]{16}", home.name)


@pytest.mark.parametrize(
    "command",
    [
        ("bin/noderuntime", "--help"),
        ("bin/noderuntime", "serve", "--help"),
        ("bin/noderuntime", "agent", "--help"),
        ("bin/noderuntime", "switch", "--help"),
        ("bin/noderuntime", "version"),
        ("bin/conmon", "--version"),
        ("bin/runc", "--version"),
        ("bin/runsc", "--version"),
        ("bin/busybox", "true"),
        ("share/pause/pause", "-V"),
    ],
    ids=" ".join,
)
def test_programs_run_with_nothing_but_the_bundle(host: Path, home: Path, command: tuple[str, ...]) -> None:
    """No loader, library, shell or Python of the host is used."""
    _in(host, str(home / command[0]), *command[1:])


@pytest.mark.parametrize("plugin", ["bridge", "host-local", "loopback", "portmap"])
def test_cni_plugins_answer(host: Path, home: Path, plugin: str) -> None:
    """VERSION needs no network and proves that the plugin runs."""
    words = _in(
        host, str(home / "bin/cni" / plugin), env={"CNI_COMMAND": "VERSION"}, stdin='{"cniVersion":"1.0.0"}'
    )
    assert "1.0.0" in json.loads(words)["supportedVersions"]


def test_every_module_of_ours_can_be_imported(host: Path, home: Path) -> None:
    """No module needs a package that the bundle lacks."""
    program = (
        "import importlib, pkgutil, noderuntime\n"
        "for found in pkgutil.walk_packages(noderuntime.__path__, 'noderuntime.'):\n"
        "    if not found.name.endswith('__main__'): importlib.import_module(found.name)\n"
        "import ssl, sqlite3, lzma, bz2, zlib\n"
    )
    _in(host, str(home / "bin/python3"), "-I", "-c", program)


def test_the_environment_of_the_host_changes_nothing(host: Path, home: Path) -> None:
    """Neither Python's nor the loader's variables reach the daemon's Python."""
    hostile = {"PYTHONPATH": "/tmp", "PYTHONHOME": "/nowhere", "LD_LIBRARY_PATH": "/tmp"}
    (host / "tmp/grpc.py").write_text("raise SystemExit('the host was asked')")
    (host / "tmp/libz.so.1").write_bytes(b"not a library")
    _in(host, str(home / "bin/noderuntime"), "version", env=hostile)


def test_running_the_bundle_writes_no_files(host: Path, home: Path) -> None:
    """All modules are compiled beforehand, so a node's versions stay as they were delivered."""
    before = _listing(host / home.relative_to("/"))
    _in(host, str(home / "bin/python3"), "-I", "-c", "import noderuntime.app, noderuntime.agent, aiohttp")
    assert _listing(host / home.relative_to("/")) == before


def test_the_operator_is_not_on_the_node(host: Path, home: Path) -> None:
    """Kopf and kubernetes would cost 60 MB and half a second on every node."""
    packages = {
        path.name for path in (host / home.relative_to("/") / "lib/python3.11/dist-packages").iterdir()
    }
    assert {"noderuntime", "grpc", "pydantic"} <= packages
    assert not packages & {"kopf", "kubernetes", "noderuntime_operator", "pip"}


def test_elf_files_use_only_the_bundles_libraries(host: Path, home: Path) -> None:
    """A library from the host would differ between nodes."""
    bundle = host / home.relative_to("/")
    own = {path.name for path in (bundle / "lib").iterdir()}
    dynamic = set()
    for path in filter(_is_elf, bundle.rglob("*")):
        words = _readelf(path)
        interpreter = [] if ".so" in path.name else re.findall(r"interpreter: (.+)\]", words)
        assert interpreter in ([], [f"{home}/lib/ld-linux-x86-64.so.2"]), path
        beside = {sibling.name for sibling in path.parent.iterdir()}
        missing = set(re.findall(r"\(NEEDED\).*\[(.+)\]", words)) - own - beside
        assert not missing, f"{path} needs {missing}"
        assert "(RUNPATH)" not in words or "$ORIGIN" in words, path
        if interpreter:
            dynamic.add(path.name)
            assert f"Library rpath: [{home}/lib]" in words
    assert dynamic == {"python3", "conmon"}


def test_the_pause_root_has_all_mount_points(host: Path, home: Path) -> None:
    """The root is mounted read-only, so a missing mount point could not be created."""
    root = host / home.relative_to("/") / "share/pause"
    assert {"dev", "etc", "pause", "proc", "run", "sys", "tmp"} <= {path.name for path in root.iterdir()}
    assert {"hostname", "hosts", "resolv.conf"} <= {path.name for path in (root / "etc").iterdir()}


def _image_script(name: str, *arguments: str) -> None:
    subprocess.run([sys.executable, SOURCE / "image" / name, *arguments], check=True)


def _in(root: Path, *command: str, env: dict[str, str] | None = None, stdin: str = "") -> str:
    """Run a command in the root with an empty environment and return what it printed."""
    done = subprocess.run(
        ["/usr/sbin/chroot", root, *command],
        env=env or {},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _listing(tree: Path) -> set[tuple[Path, int]]:
    return {(path, path.lstat().st_mtime_ns) for path in tree.rglob("*")}


def _is_elf(path: Path) -> bool:
    if not path.is_file() or path.is_symlink():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _readelf(path: Path) -> str:
    command = ["readelf", "--wide", "--program-headers", "--dynamic", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
