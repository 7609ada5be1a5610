"""``noderuntime switch``, implemented in :mod:`noderuntime.agent.switch_cli`."""

from noderuntime.agent.switch_cli import run_switch as run

__all__ = ("run",)
