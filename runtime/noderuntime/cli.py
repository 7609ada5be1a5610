"""The command line: one program for the daemon, the agent and the switch.

Each command imports what it needs when it runs: the switch works in a host unit
that has a second to spare, without gRPC; the daemon does without the agent.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import noderuntime
from noderuntime.errors import InvalidArgument, NoderuntimeError

EXIT_FAILURE = 1
EXIT_USAGE = 2

_CONFIG_FILE = Path("/etc/noderuntime/config.toml")


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status; a failure is one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="noderuntime",
        description=noderuntime.__doc__,
        epilog="; ".join(f"{name}: {command.__doc__}" for name, command in _COMMANDS.items()),
    )
    parser.add_argument("command", choices=_COMMANDS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="see noderuntime COMMAND --help")
    options = parser.parse_args(arguments)
    try:
        return _COMMANDS[options.command](options.arguments)
    except InvalidArgument as error:
        return _fail(error, EXIT_USAGE)
    except (NoderuntimeError, OSError) as error:
        return _fail(error, EXIT_FAILURE)


def _serve(arguments: Sequence[str]) -> int:
    """run the CRI runtime until SIGTERM"""
    import asyncio  # noqa: PLC0415 - the other commands do without

    from noderuntime import app, config, log  # noqa: PLC0415

    parser = argparse.ArgumentParser(prog="noderuntime serve", description=app.__doc__)
    parser.add_argument("--config", type=Path, default=_CONFIG_FILE, help="default: %(default)s")
    settings = config.load(parser.parse_args(arguments).config)
    log.configure(settings.log.level)
    asyncio.run(app.run(settings))
    return 0


def _agent(arguments: Sequence[str]) -> int:
    """be the DaemonSet's pod"""
    from noderuntime.agent.main import run_agent  # noqa: PLC0415

    return run_agent(arguments)


def _switch(arguments: Sequence[str]) -> int:
    """give the kubelet this runtime, or the one it had before"""
    from noderuntime.agent.switch_cli import run_switch  # noqa: PLC0415

    return run_switch(arguments)


def _version(_arguments: Sequence[str]) -> int:
    """print the version"""
    print(noderuntime.__version__)
    return 0


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "serve": _serve,
    "agent": _agent,
    "switch": _switch,
    "version": _version,
}


def _fail(error: Exception, status: int) -> int:
    print(f"noderuntime: {' '.join(str(error).split())}", file=sys.stderr)
    return status
