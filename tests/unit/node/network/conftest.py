import asyncio
import json
from pathlib import Path

import pytest

from noderuntime.core.errors import HostError
from noderuntime.core.paths import Paths
from noderuntime.cri.v1 import api_pb2
from noderuntime.node.host.base import Completed


class PluginHost:
    """Runs no CNI plugin: records every call, and returns or raises what the test wants."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, dict, dict]] = []
        self.answers: dict[tuple[str, str], Completed | Exception] = {}
        self.timeouts: list[float] = []
        self.hold: dict[tuple[str, str], asyncio.Event] = {}
        """Calls that wait until a test lets them go on."""
        self.held = asyncio.Event()
        self.restored: list[str] = []
        self.refuses = False

    async def run(self, argv, *, timeout, stdin=b"", env=None, **_):
        kind, command = Path(argv[0]).name, env["CNI_COMMAND"]
        self.calls.append((command, kind, json.loads(stdin), dict(env)))
        self.timeouts.append(timeout)
        default = {"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.2/24"}], "from": kind}
        if (gate := self.hold.get((command, kind))) is not None:
            self.held.set()
            await gate.wait()
        answer = self.answers.get((command, kind), Completed(0, json.dumps(default).encode(), b""))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def add_addresses(self, pin, interface, addresses):
        if self.refuses:
            raise HostError("add", 1, "no")
        self.restored += [f"{pin.name} {interface} {address}" for address in addresses]

    @property
    def order(self):
        return [(command, kind) for command, kind, _, _ in self.calls]


@pytest.fixture
def host():
    return PluginHost()


@pytest.fixture
def paths(tmp_path):
    paths = Paths(tmp_path / "run")
    paths.sandbox("5b").dir.mkdir(parents=True)
    return paths


@pytest.fixture
def conf_dir(tmp_path):
    path = tmp_path / "net.d"
    path.mkdir()
    return path


@pytest.fixture
def plugin_dir(tmp_path):
    path = tmp_path / "bin"
    path.mkdir()
    for name in ("bridge", "portmap", "bandwidth"):
        (path / name).touch(mode=0o755)
    return path


@pytest.fixture
def netns(tmp_path):
    path = tmp_path / "netns"
    path.touch()
    return str(path)


@pytest.fixture
def attach(network, netns, pod):
    """Return a function that attaches a pod to the network of the test's module."""

    async def attach(sandbox_id="5b"):
        return await network.attach(sandbox_id, netns, pod, await network.configuration())

    return attach


@pytest.fixture
def pod():
    return api_pb2.PodSandboxConfig(
        metadata=api_pb2.PodSandboxMetadata(name="web", namespace="shop", uid="u-1", attempt=0)
    )
