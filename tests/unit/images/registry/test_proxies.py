"""The proxy of a request, from the common environment variables."""

import os

import pytest
from yarl import URL

from noderuntime.images.registry.endpoints import RegistryHost
from noderuntime.images.registry.proxies import proxy_of

HOST = RegistryHost("https", "registry.example")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("http_proxy", "plain.example:3128")
    return monkeypatch


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://registry.example/v2", "http://proxy.example:3128"),
        ("http://registry.example/v2", "http://plain.example:3128"),
        ("https://10.1.2.3:5000/v2", "http://proxy.example:3128"),
        ("https://localhost/v2", None),
        ("https://localhost:5000/v2", None),
        ("https://127.0.0.9:5000/v2", None),
        ("https://[::1]:5000/v2", None),
    ],
)
def test_the_environments_proxy_excludes_loopback(url, proxy):
    assert proxy_of(HOST, URL(url)) == proxy


@pytest.mark.parametrize(
    ("exempt", "url", "direct"),
    [
        ("registry.example", "https://registry.example", True),
        ("registry.example", "https://sub.registry.example:5000", True),
        (".example", "https://registry.example", True),
        ("registry.example:5000", "https://registry.example:5000", True),
        ("registry.example:5000", "https://registry.example", False),
        ("other.example, registry.example", "https://registry.example", True),
        ("*", "https://registry.example", True),
        ("10.0.0.0/8", "https://10.1.2.3:5000", True),
        ("10.0.0.0/8", "https://11.1.2.3:5000", False),
        ("x, 10.1.2.3/8,fd00::/8", "https://[fd00::1]:5000", True),
        ("fd00::/8", "https://10.1.2.3", False),
        ("10.1.2.3", "https://10.1.2.3:5000", True),
        ("10.0.0.0/99,/8,//", "https://10.1.2.3", False),
    ],
)
def test_no_proxy_exempts_hosts_and_networks(environment, exempt, url, direct):
    environment.setenv("NO_PROXY", exempt)
    assert (proxy_of(HOST, URL(url)) is None) is direct


def test_a_hosts_own_proxy_overrides_the_environment(environment):
    environment.setenv("NO_PROXY", "*")
    host = RegistryHost("https", "registry.example", proxy="http://own.example:1")
    assert proxy_of(host, URL("https://registry.example/v2")) == "http://own.example:1"


def test_without_settings_no_proxy_is_used(environment):
    environment.delenv("HTTPS_PROXY")
    assert proxy_of(HOST, URL("https://registry.example/v2")) is None
