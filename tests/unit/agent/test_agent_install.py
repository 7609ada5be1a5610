"""The bundle and the files on the node's disk."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from noderuntime.agent import bundle, order, units
from noderuntime.agent import durable_files as files
from noderuntime.agent.instance import InstanceSpec, parse
from noderuntime.agent.layout import Layout
from noderuntime.config import load
from noderuntime.core.errors import InvalidArgument, ResourceExhausted

DIGEST = "0123456789abcdef"
SPEC = InstanceSpec.model_validate(
    {"handlers": [{"name": "gv", "type": "GVisor"}, {"name": "r", "type": "Runc"}]}
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    home = tmp_path / "source"
    (home / "bin").mkdir(parents=True)
    (home / "BUNDLE").write_text(f"{DIGEST}\n")
    (home / "bin/tool").write_text("tool")
    (home / "bin/tool").chmod(0o755)
    (home / "bin/link").symlink_to("tool")
    return home


@pytest.fixture
def place(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "host")


def test_bundle_appears_under_its_digest_and_current_points_at_it(source: Path, place: Layout) -> None:
    assert bundle.install(source, place, verify=True)
    assert os.readlink(place.current) == f"versions/{DIGEST}"
    assert bundle.manifest(place.current.resolve()) == bundle.manifest(source)
    assert not bundle.install(source, place, verify=True)


def test_half_copied_bundle_is_started_over(source: Path, place: Layout) -> None:
    partial = place.versions / f".{DIGEST}.partial"
    (partial / "bin").mkdir(parents=True)
    (partial / "bin/tool").write_text("to")
    bundle.install(source, place, verify=True)
    assert not partial.exists()
    assert (place.current / "bin/tool").read_text() == "tool"


def test_damaged_bundle_is_mended_without_a_moment_without_it(source: Path, place: Layout) -> None:
    bundle.install(source, place, verify=True)
    tool = place.current / "bin/tool"
    with tool.open() as running:
        tool.chmod(0o600)
        (place.current / "bin/link").unlink()
        assert bundle.install(source, place, verify=True)
        assert running.read() == "tool"
    assert bundle.manifest(place.current.resolve()) == bundle.manifest(source)


def test_changed_content_is_found(source: Path, place: Layout) -> None:
    bundle.install(source, place, verify=True)
    (place.current / "bin/tool").write_text("evil")
    assert not bundle.install(source, place, verify=False)
    assert bundle.install(source, place, verify=True)
    assert (place.current / "bin/tool").read_text() == "tool"


def test_full_disk_is_said_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    (source / "bin/big").write_bytes(os.urandom(1 << 20))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], check=True)
    try:
        with pytest.raises(ResourceExhausted, match="no space left on the node's disk"):
            bundle.install(source, Layout(small), verify=True)
        assert list(Layout(small).versions.iterdir()) == []
        assert not Layout(small).current.is_symlink()
    finally:
        subprocess.run(["umount", small], check=True)


def test_file_is_replaced_in_one_step_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file"
    assert files.write(path, b"one", mode=0o640)
    assert files.write(path, b"two")
    assert not files.write(path, b"two")
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(path.parent.iterdir()) == [path]


def test_file_behind_a_link_is_replaced_and_the_link_kept(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("one")
    (tmp_path / "link").symlink_to("real")
    files.write(tmp_path / "link", b"two")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "two"


def test_daemon_reads_what_the_agent_writes(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(order.daemon_config(SPEC, DIGEST))
    config = load(tmp_path / "config.toml")
    assert {name: handler.type for name, handler in config.handlers.items()} == {"gv": "gvisor", "r": "runc"}
    assert str(config.handlers["gv"].path) == f"/opt/noderuntime/versions/{DIGEST}/bin/runsc"


def test_order_reads_back_and_its_revision_follows_what_matters(tmp_path: Path) -> None:
    first = order.switch_order(SPEC, DIGEST)
    (tmp_path / "switch.toml").write_text(order.render(first))
    assert order.load(tmp_path / "switch.toml") == first
    assert order.switch_order(SPEC, DIGEST) == first
    assert order.switch_order(SPEC, "f" * 16).revision != first.revision
    removed = SPEC.model_copy(update={"state": "Removed"})
    assert order.switch_order(removed, DIGEST).revision != first.revision


def test_order_of_nonsense_is_refused(tmp_path: Path) -> None:
    (tmp_path / "switch.toml").write_text('mode = "Sideways"')
    with pytest.raises(InvalidArgument, match="mode"):
        order.load(tmp_path / "switch.toml")
    with pytest.raises(InvalidArgument, match="upstream_socket"):
        order.switch_order(SPEC.model_copy(update={"upstream_socket": 'x"\n'}), DIGEST)


def test_units_change_with_what_the_daemon_is_started_with() -> None:
    one = units.render(revision=units.daemon_revision(DIGEST, "a"), timeout_seconds=60)
    two = units.render(revision=units.daemon_revision(DIGEST, "b"), timeout_seconds=60)
    assert {name for name in one if one[name] != two[name]} == {"noderuntime.service"}
    assert "OnActiveSec=75" in one["noderuntime-switch-revert.timer"]


def test_instance_of_an_unknown_kind_is_told_by_its_field() -> None:
    with pytest.raises(InvalidArgument, match=r"spec\.handlers\.0\.type"):
        parse({"metadata": {"generation": 1}, "spec": {"handlers": [{"name": "x", "type": "Kata"}]}})
