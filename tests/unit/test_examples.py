"""The files in examples/ are the ones that the agent installs and that tests use."""

from __future__ import annotations

from pathlib import Path

from noderuntime.agent import layout, units
from noderuntime.config import load

_EXAMPLES = Path(__file__).parents[2] / "examples"


def test_standalone_config_has_runc_as_its_default_handler() -> None:
    config = load(_EXAMPLES / "standalone.toml")
    assert list(config.handlers) == ["runc", "gvisor"]
    assert (config.images.backend, config.upstream) == ("native", None)


def test_example_unit_equals_the_agents_unit() -> None:
    shipped = units.render("by-hand")[layout.SERVICE]
    assert (_EXAMPLES / "noderuntime.service").read_text() == shipped
