"""The machine's second disk, mounted at ``/opt/noderuntime``: the bundle, its configuration, the tests."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

from realnode.containerd import IMAGE
from realnode.image import write_image

from harness.paths import REPO, tool
from harness.run import run
from noderuntime.agent import layout, units
from vm.system import ext4

_IMAGE = "localhost/noderuntime:vm-test"
_BUILD_SECONDS = 1200
_PACKAGES = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")
_TESTS = ("test_pod_life.py", "test_container_config.py", "test_user_namespaces.py")
"""Contract tests that also run in this machine."""
_DESELECTED = (
    "test_without_the_upstream_lists_fail_and_our_pods_run",  # the machine has no containerd
    "test_an_invalid_pod_is_rejected",  # uses handlers of an upstream
    "test_systemd_is_notified_when_the_socket_serves",  # here systemd starts the daemon
)
_BRIDGE = {"type": "bridge", "bridge": "nrct0", "isGateway": True, "ipMasq": True}
_IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.85.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
_SETTINGS = """\
[pytest]
addopts = -v -ra --color=no -p no:cacheprovider -p vm.guest.fixtures {options}
testpaths = vm/guest {tests}
filterwarnings = error
"""


def write_payload(image: Path, arguments: str) -> None:
    """Write the disk; arguments are passed to pytest in the machine."""
    with tempfile.TemporaryDirectory(prefix="noderuntime-vm-") as scratch:
        tree = Path(scratch, "tree")
        program = str(REPO / "image")
        run(sys.executable, f"{program}/build.py", "--image", _IMAGE, timeout=_BUILD_SECONDS)
        run(sys.executable, f"{program}/export.py", _IMAGE, str(tree), timeout=_BUILD_SECONDS)
        (tree / "current").symlink_to((tree / "bundle").readlink())
        _write_etc(tree / "smoke/etc")
        _copy_tests(tree / "smoke", arguments)
        write_image(tree / "smoke/image.tar", IMAGE, Path(tool("busybox")), ["sh"])
        ext4(tree, image, "1G")


def _write_etc(etc: Path) -> None:
    """Write the files for /etc: the unit and the configuration of a node without another runtime."""
    plugins = [_BRIDGE | {"ipam": _IPAM}, {"type": "portmap", "capabilities": {"portMappings": True}}]
    rendered = units.render("by-hand")
    files = {
        f"systemd/system/{layout.SERVICE}": rendered[layout.SERVICE],
        "noderuntime/config.toml": (REPO / "examples/standalone.toml").read_text(),
        "noderuntime/conf.d/crun.toml": "[handlers.crun]\ntype = 'oci'\npath = '/usr/bin/crun'\n",
        "cni/net.d/10-bridge.conflist": json.dumps(
            {"cniVersion": "1.0.0", "name": "bridge", "plugins": plugins}
        ),
    }
    for name, content in files.items():
        (etc / name).parent.mkdir(parents=True, exist_ok=True)
        (etc / name).write_text(content)


def _copy_tests(smoke: Path, arguments: str) -> None:
    """Copy the tests and pytest; the bundle's Python has all other packages."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in _PACKAGES:
        _copy_package(distribution(name), smoke / "packages")
    shutil.copytree(REPO / "tests/vm", smoke / "tests/vm", ignore=ignored)
    shutil.copytree(REPO / "tests/contract/realnode", smoke / "tests/realnode", ignore=ignored)
    for name in _TESTS:
        shutil.copy(REPO / "tests/contract" / name, smoke / "tests" / name)
    left_out = " ".join(f"--deselect={_TESTS[0]}::{name}" for name in _DESELECTED)
    settings = _SETTINGS.format(options=f"{left_out} {arguments}", tests=" ".join(_TESTS))
    (smoke / "tests/pytest.ini").write_text(settings)
    shutil.copy(REPO / "tests/vm/guest/run.sh", smoke / "run.sh")


def _copy_package(package: Distribution, target: Path) -> None:
    for file in package.files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), target / file)
