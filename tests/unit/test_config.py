"""The daemon's configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from noderuntime.config import Config, MetricsConfig, load
from noderuntime.core.errors import InvalidArgument


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """Return a directory with two versions of a bundle, and a symlink ``current`` to the old one."""
    for version in ("old", "new"):
        for directory in ("bin", "share/pause"):
            (tmp_path / version / directory).mkdir(parents=True)
        for program in ("runc", "conmon"):
            (tmp_path / version / "bin" / program).touch()
    (tmp_path / "current").symlink_to("old")
    return tmp_path


def _configuration(bundles: Path) -> Config:
    current = bundles / "current"
    file = bundles / "config.toml"
    file.write_text(
        f'[tools]\nconmon = "{current}/bin/conmon"\npause_rootfs = "{current}/share/pause"\n'
        f'[handlers.runc]\ntype = "runc"\npath = "{current}/bin/runc"\n'
    )
    return load(file)


def test_load_resolves_the_current_bundle_once(bundles: Path) -> None:
    config = _configuration(bundles)
    (bundles / "current").unlink()
    (bundles / "current").symlink_to("new")
    paths = (config.tools.conmon, config.tools.pause_rootfs, config.handlers["runc"].path)
    assert [path.relative_to(bundles).parts[0] for path in paths] == ["old"] * 3
    assert _configuration(bundles).tools.conmon == bundles / "new/bin/conmon"


def test_load_keeps_a_program_without_a_directory(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[handlers.runc]\ntype = "runc"\npath = "runc"\n')
    config = load(tmp_path / "config.toml")
    assert (config.handlers["runc"].path, config.tools.conmon) == (Path("runc"), Path("conmon"))


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        (None, None),
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("[::1]:80", ("::1", 80)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
    ],
)
def test_metrics_endpoint_is_host_and_port(address: str | None, endpoint: tuple[str, int] | None) -> None:
    assert MetricsConfig(address=address).endpoint == endpoint


@pytest.mark.parametrize(
    "address", ["", "9464", ":9464", "localhost:9464", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "::1:x"]
)
def test_metrics_address_is_refused_with_an_example(address: str) -> None:
    with pytest.raises(ValidationError, match=r"example: 127\.0\.0\.1:9464"):
        MetricsConfig(address=address)


def test_runsc_flags_need_a_gvisor_handler(tmp_path: Path) -> None:
    chosen = '[handlers.a]\ntype = "{}"\npath = "/x"\n[handlers.a.runsc]\nplatform = "kvm"\n'
    (tmp_path / "config.toml").write_text(chosen.format("gvisor"))
    assert load(tmp_path / "config.toml").handlers["a"].runsc.platform == "kvm"
    (tmp_path / "config.toml").write_text(chosen.format("runc"))
    with pytest.raises(InvalidArgument, match=r"handlers\.a: .*only gvisor has them"):
        load(tmp_path / "config.toml")
