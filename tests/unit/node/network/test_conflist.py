import json

import pytest

from noderuntime.core.errors import InvalidArgument
from noderuntime.node.network import conflist


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_load_uses_the_first_file_by_name(conf_dir):
    write(conf_dir / "20-b.conflist", {"name": "b", "cniVersion": "1.0.0", "plugins": [{"type": "x"}]})
    write(conf_dir / "10-a.conf", {"name": "a", "cniVersion": "0.4.0", "type": "bridge"})
    write(conf_dir / "00-ignored.yaml", "name: c")
    network = conflist.load(conf_dir)
    assert (network.name, network.version) == ("a", "0.4.0")
    assert network.plugins == ({"name": "a", "cniVersion": "0.4.0", "type": "bridge"},)


def test_load_skips_an_invalid_file(conf_dir):
    write(conf_dir / "10-half-written.conflist", '{"name": ')
    write(conf_dir / "20-good.conflist", {"name": "b", "cniVersion": "1.0.0", "plugins": [{"type": "x"}]})
    assert conflist.load(conf_dir).name == "b"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"name": ', "Expecting value"),
        ("[]", "not a JSON object"),
        ({"cniVersion": "1.0.0", "plugins": [{"type": "x"}]}, "no name"),
        ({"name": "a", "cniVersion": "1.0.0", "plugins": []}, "no plugins"),
        ({"name": "a", "cniVersion": "1.0.0", "plugins": [{"type": "../../bin/sh"}]}, "not a file name"),
        ({"name": "a", "cniVersion": "1.0.0", "plugins": ["bridge"]}, "no type"),
        ({"name": "a", "cniVersion": "9.9.9", "plugins": [{"type": "x"}]}, "'9.9.9' is not among"),
        ({"name": "a", "plugins": [{"type": "x"}]}, "'0.1.0' is not among"),
        ("[" * 100_000, "10-a.conflist"),
        ("x" * ((1 << 20) + 1), "larger than 1 MiB"),
    ],
)
def test_load_error_is_one_line_that_names_the_file(conf_dir, content, words):
    write(conf_dir / "10-a.conflist", content)
    with pytest.raises(InvalidArgument, match=words) as caught:
        conflist.load(conf_dir)
    assert "10-a.conflist" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_load_error_names_an_empty_or_missing_directory(conf_dir):
    with pytest.raises(InvalidArgument, match="no CNI configuration in"):
        conflist.load(conf_dir)
    with pytest.raises(InvalidArgument, match="No such file"):
        conflist.load(conf_dir / "missing")


def test_version_is_the_newest_that_both_support():
    content = {"name": "a", "cniVersions": ["0.4.0", "1.1.0", "2.0.0"], "plugins": [{"type": "x"}]}
    assert conflist.parse(content).version == "1.1.0"


def test_plugins_of_the_directory_are_added_to_the_list(conf_dir):
    inline = {"name": "a", "cniVersion": "1.1.0", "plugins": [{"type": "bridge"}]}
    write(conf_dir / "10-a.conflist", inline)
    (conf_dir / "a").mkdir()
    write(conf_dir / "a/10-more.conf", {"type": "portmap"})
    assert [plugin["type"] for plugin in conflist.load(conf_dir).plugins] == ["bridge", "portmap"]
    write(conf_dir / "10-a.conflist", inline | {"loadOnlyInlinedPlugins": True})
    assert [plugin["type"] for plugin in conflist.load(conf_dir).plugins] == ["bridge"]


def test_network_survives_serialization():
    network = conflist.NetworkList("a", "1.0.0", ({"type": "bridge", "ipam": {"type": "host-local"}},))
    assert conflist.parse(json.loads(json.dumps(network.to_json()))) == network


@pytest.mark.parametrize(
    ("version", "asked", "newer"),
    [
        ("0.3.1", "0.4.0", False),
        ("0.4.0", "0.4.0", True),
        ("1.0.0", "1.1.0", False),
        ("0.10.0", "0.4.0", True),
        ("10.0.0", "1.1.0", True),
    ],
)
def test_versions_compare_as_versions(version, asked, newer):
    assert conflist.NetworkList("a", version, ()).at_least(asked) is newer
