"""The lookup of registries in certs.d directories, and the defaults without one."""

from pathlib import Path

import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.images.registry.endpoints import RegistryHost, Tls
from noderuntime.images.registry.hosts import Hosts


@pytest.fixture
def certs(tmp_path):
    return tmp_path / "certs.d"


def write(certs: Path, directory: str, toml: str, file: str = "hosts.toml") -> Path:
    (certs / directory).mkdir(parents=True, exist_ok=True)
    (certs / directory / file).write_text(toml)
    return certs / directory


async def lookup(certs: Path, registry: str = "registry.example") -> tuple[RegistryHost, ...]:
    return await Hosts([certs]).lookup(registry)


@pytest.mark.parametrize(
    ("registry", "host"),
    [
        ("registry.example", RegistryHost("https", "registry.example")),
        ("registry.example:5000", RegistryHost("https", "registry.example:5000")),
        ("docker.io", RegistryHost("https", "registry-1.docker.io")),
        ("localhost", RegistryHost("https", "localhost")),
        ("127.0.0.1:443", RegistryHost("https", "127.0.0.1:443")),
        ("localhost:80", RegistryHost("http", "localhost:80")),
        (
            "127.0.0.9:5000",
            RegistryHost("https", "127.0.0.9:5000", tls=Tls(skip_verify=True), may_be_plain=True),
        ),
        ("[::1]:5000", RegistryHost("https", "[::1]:5000", tls=Tls(skip_verify=True), may_be_plain=True)),
        ("localhost.example:5000", RegistryHost("https", "localhost.example:5000")),
    ],
)
async def test_without_a_file_the_registry_itself_is_used(certs, registry, host):
    assert await lookup(certs, registry) == (host,)


@pytest.mark.parametrize(
    ("registry", "directories"),
    [
        ("r.example:5000", ["r.example_5000_", "r.example:5000", "_default"]),
        ("r.example:5000", ["r.example:5000", "_default", "r.example"]),
        ("r.example:5000", ["_default", "r.example"]),
        ("r.example", ["r.example", "_default"]),
        ("[::1]:5000", ["[::1]_5000_", "[::1]:5000", "_default", "[::1]"]),
        ("[::1]", ["[::1]", "_default"]),
    ],
)
async def test_the_most_specific_directory_is_read(certs, registry, directories):
    for number, directory in enumerate(directories):
        write(certs, directory, f'server = "https://number-{number}.example"')
    assert [host.authority for host in await lookup(certs, registry)] == ["number-0.example"]


async def test_the_first_root_with_the_registry_is_used(tmp_path):
    write(tmp_path / "one", "_default", 'server = "https://one.example"')
    write(tmp_path / "two", "registry.example", 'server = "https://two.example"')
    (tmp_path / "file").write_text("")
    roots = [tmp_path / "missing", tmp_path / "file", tmp_path / "two", tmp_path / "one"]
    hosts = Hosts(roots)
    assert [host.authority for host in await hosts.lookup("registry.example")] == ["two.example"]
    assert [host.authority for host in await hosts.lookup("other.example")] == ["one.example"]


async def test_a_changed_file_applies_to_the_next_pull(certs):
    hosts = Hosts([certs])
    assert len(await hosts.lookup("registry.example")) == 1
    write(certs, "registry.example", '[host."https://m.example"]')
    assert len(await hosts.lookup("registry.example")) == 2


@pytest.mark.parametrize("empty", [True, False], ids=["an empty hosts.toml", "no hosts.toml"])
async def test_docker_certificates_apply_without_a_hosts_toml(certs, empty):
    for name in ("a.crt", "b.crt", "client.cert", "client.key", "lone.cert", "readme.txt"):
        directory = write(certs, "registry.example", "", name)
    if empty:
        write(certs, "registry.example", "")
    assert (await lookup(certs))[0].tls == Tls(
        ca=(directory / "a.crt", directory / "b.crt"),
        client=((directory / "client.cert", directory / "client.key"), (directory / "lone.cert", None)),
    )
    write(certs, "registry.example", "skip_verify = true")
    assert (await lookup(certs))[0].tls == Tls(skip_verify=True)


async def test_an_empty_directory_has_no_effect(certs):
    (certs / "localhost:5000").mkdir(parents=True)
    assert await lookup(certs, "localhost:5000") == await lookup(certs / "missing", "localhost:5000")


async def test_an_unreadable_path_is_an_error(certs):
    (certs / "registry.example" / "hosts.toml").mkdir(parents=True)
    with pytest.raises(InvalidArgument, match=r"hosts\.toml: Is a directory"):
        await lookup(certs)
    with pytest.raises(InvalidArgument, match="File name too long"):
        await lookup(certs, "a" * 300)
