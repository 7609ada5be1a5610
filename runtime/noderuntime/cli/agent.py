"""``noderuntime agent``, implemented in :mod:`noderuntime.agent.main`."""

from noderuntime.agent.main import run_agent as run

__all__ = ("run",)
