"""The files that people copy to a node are those that are tested and shipped."""

from __future__ import annotations

from pathlib import Path

from noderuntime.agent import layout, units
from noderuntime.config import load

_EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_node_alone_starts_pods_in_runc_unless_told_otherwise() -> None:
    config = load(_EXAMPLES / "standalone.toml")
    assert list(config.handlers) == ["runc", "gvisor"]
    assert (config.images.backend, config.upstream) == ("native", None)


def test_the_unit_is_the_one_that_the_agent_installs() -> None:
    shipped = units.render(revision="by-hand", timeout_seconds=60)[layout.SERVICE]
    assert (_EXAMPLES / "noderuntime.service").read_text() == shipped
