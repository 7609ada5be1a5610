"""The servers in a hosts.toml, as containerd parses it."""

from pathlib import Path

import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.images.registry.endpoints import EVERYTHING, RegistryHost, Tls
from noderuntime.images.registry.hosts import Hosts


@pytest.fixture
def certs(tmp_path):
    return tmp_path / "certs.d"


def write(certs: Path, directory: str, toml: str) -> Path:
    (certs / directory).mkdir(parents=True, exist_ok=True)
    (certs / directory / "hosts.toml").write_text(toml)
    return certs / directory


async def lookup(certs: Path, registry: str = "registry.example") -> tuple[RegistryHost, ...]:
    return await Hosts([certs]).lookup(registry)


async def test_mirrors_are_in_file_order_and_the_server_is_last(certs):
    write(
        certs,
        "registry.example",
        """
        server = "https://upstream.example"
        [host."https://z.example"]
        [host."http://a.example:5000"]
        [host."b.example"]
        [host.httpd]
        """,
    )
    found = await lookup(certs)
    assert [(host.scheme, host.authority, host.path) for host in found] == [
        ("https", "z.example", "/v2"),
        ("http", "a.example:5000", "/v2"),
        ("https", "b.example", "/v2"),
        ("https", "httpd", "/v2"),
        ("https", "upstream.example", "/v2"),
    ]
    assert [host.is_registry for host in found] == [False] * 4 + [True]


async def test_without_a_server_the_registry_itself_is_last(certs):
    directory = write(
        certs,
        "docker.io",
        """
        capabilities = ["pull"]
        ca = "ca.pem"
        dial_timeout = "5s"
        header = { X-A = "1" }
        [host."https://mirror.example"]
        """,
    )
    assert (await lookup(certs, "docker.io"))[-1] == RegistryHost(
        "https",
        "registry-1.docker.io",
        tls=Tls(ca=(directory / "ca.pem",)),
        headers=(("X-A", "1"),),
        dial_seconds=5.0,
    )


@pytest.mark.parametrize("url", ["https://registry.example", "http://Registry.example"])
async def test_a_host_that_is_the_registry_gets_its_credentials(certs, url):
    write(certs, "registry.example", f'[host."{url}"]')
    assert [host.is_registry for host in await lookup(certs)] == [True, True]


async def test_dockers_server_is_the_registry_docker_io(certs):
    write(certs, "docker.io", '[host."https://registry-1.docker.io"]')
    assert [host.is_registry for host in await lookup(certs, "docker.io")] == [True, True]


@pytest.mark.parametrize(
    ("url", "override", "path"),
    [
        ("https://m.example", "", "/v2"),
        ("https://m.example/", "", "/v2"),
        ("https://m.example/v2", "", "/v2"),
        ("https://m.example//team//v2/", "", "/team/v2"),
        ("https://m.example/team", "", "/team/v2"),
        ("https://m.example/team", "override_path = true", "/team"),
        ("https://m.example/team/v2", "override_path = true", "/team/v2"),
        ("https://m.example", "override_path = true", ""),
    ],
)
async def test_the_api_root_is_v2_unless_overridden(certs, url, override, path):
    write(certs, "registry.example", f'[host."{url}"]\n{override}')
    assert (await lookup(certs))[0].path == path


async def test_capabilities(certs):
    write(
        certs,
        "registry.example",
        """
        [host."https://a.example"]
        capabilities = ["pull"]
        [host."https://b.example"]
        capabilities = ["Pull", "RESOLVE", "push", "referrers"]
        [host."https://c.example"]
        """,
    )
    found = [host.capabilities for host in await lookup(certs)]
    assert found == [{"pull"}, EVERYTHING, EVERYTHING, EVERYTHING]


@pytest.mark.parametrize(
    ("toml", "tls"),
    [
        ('ca = "a.pem"', Tls(ca=("a.pem",))),
        ('ca = ["a.pem", "/etc/b.pem"]', Tls(ca=("a.pem", "/etc/b.pem"))),
        ('client = "both.pem"', Tls(client=(("both.pem", None),))),
        ('client = ["1.pem", "2.pem"]', Tls(client=(("1.pem", None), ("2.pem", None)))),
        ('client = [["1.cert", "1.key"], ["2.pem", ""]]', Tls(client=(("1.cert", "1.key"), ("2.pem", None)))),
        ("skip_verify = true", Tls(skip_verify=True)),
        ("skip_verify = false", Tls()),
    ],
)
async def test_certificates(certs, toml, tls):
    directory = write(certs, "registry.example", f'[host."https://m.example"]\n{toml}')
    assert (await lookup(certs))[0].tls == Tls(
        tuple(directory / name for name in tls.ca),
        tuple((directory / cert, directory / key if key else None) for cert, key in tls.client),
        tls.skip_verify,
    )


@pytest.mark.parametrize(
    ("url", "toml", "scheme", "may_be_plain"),
    [
        ("http://m.example", "", "http", False),
        ("http://m.example:5000", "skip_verify = true", "https", True),
        ("http://m.example", "skip_verify = false", "https", True),
        ("http://m.example:5000", 'ca = "a.pem"', "https", True),
        ("http://m.example:80", 'ca = "a.pem"', "http", False),
        ("https://m.example", 'ca = "a.pem"', "https", False),
    ],
)
async def test_http_with_tls_settings_tries_tls_first(certs, url, toml, scheme, may_be_plain):
    write(certs, "registry.example", f'[host."{url}"]\n{toml}')
    host = (await lookup(certs))[0]
    assert (host.scheme, host.may_be_plain) == (scheme, may_be_plain)
    assert host.allows_plain is url.startswith("http:")
    assert host.plain().scheme == "http"


async def test_tls_settings_apply_to_loopback(certs):
    """Without a server in the file, its TLS settings apply to the registry itself."""
    directory = write(certs, "localhost:5000", 'ca = "a.pem"')
    assert await lookup(certs, "localhost:5000") == (
        RegistryHost("https", "localhost:5000", tls=Tls(ca=(directory / "a.pem",)), may_be_plain=True),
    )


async def test_headers(certs):
    write(
        certs,
        "registry.example",
        """
        server = "https://registry.example"
        [header]
        X-Of-Server = "s"
        [host."https://m.example".header]
        X-One = "1"
        X-Two = ["2", "3"]
        """,
    )
    mirror, server = await lookup(certs)
    assert mirror.headers == (("X-One", "1"), ("X-Two", "2"), ("X-Two", "3"))
    assert server.headers == (("X-Of-Server", "s"),)
    assert "X-Of-Server" not in repr(server), "a header can contain a secret"


@pytest.mark.parametrize(
    ("duration", "seconds"), [("1s", 1), ("500ms", 0.5), ("1m30s", 90), ("1.5h", 5400), ("", 30)]
)
async def test_dial_timeouts_are_go_durations(certs, duration, seconds):
    write(certs, "registry.example", f'dial_timeout = "{duration}"')
    assert (await lookup(certs))[0].dial_seconds == seconds


async def test_a_proxy(certs):
    write(certs, "registry.example", 'proxy = "http://user:secret@proxy.example:3128"')
    host = (await lookup(certs))[0]
    assert host.proxy == "http://user:secret@proxy.example:3128"
    assert "secret" not in repr(host)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("server = ", "Invalid value"),
        ("server = 1", "server: Input should be a valid string"),
        ('server = "ftp://m.example"', "'ftp://m.example' is not the URL of a registry"),
        ('server = "https://"', "is not the URL of a registry"),
        ('server = "https://user:secret-word@m.example"', "is not the URL of a registry"),
        ('server = "https://m.example:99999"', "is not the URL of a registry"),
        ('server = "https://m.example/a b"', "is not the URL of a registry"),
        ('server = "https://m\u00fc.example"', "is not the URL of a registry"),
        ('server = "https://[::1"', "Invalid IPv6 URL"),
        ('[host."https://m.example"]\ncapabilities = ["fly"]', "Input should be 'pull'"),
        ('[host."a\\nb"]\nca = 1', "host.a b.ca"),
        ('client = [["a"]]', "client"),
        ('skip_verify = "yes"', "skip_verify: Input should be a valid boolean"),
        ('header = { "a b" = "secret-word" }', "header 'a b' is invalid"),
        ('header = { a = "secret-word\\r\\nX: 1" }', "header 'a' is invalid"),
        ("header = { a = 1 }", "header.a"),
        ('dial_timeout = "soon"', "duration 'soon' is invalid"),
        ('proxy = "socks5://p.example:1"', "proxy is not the URL of an HTTP proxy"),
        ('proxy = "p.example:1"', "proxy is not the URL of an HTTP proxy"),
        (f"x = {'[' * 5000}", "."),
        (f"# {'x' * (1 << 20)}", "larger than 1048576 bytes"),
        ("\x00", "Illegal|Invalid"),
    ],
)
async def test_an_invalid_file_is_named_in_one_line(certs, toml, words):
    """The file can be what keeps pulls inside a private network, so it must not be ignored."""
    directory = write(certs, "registry.example", toml)
    with pytest.raises(InvalidArgument, match=words) as caught:
        await lookup(certs)
    text = str(caught.value)
    assert text.startswith(f"{directory}/hosts.toml: ")
    assert "\n" not in text
    assert "secret-word" not in text
    assert len(text) < 700
