"""The arguments of ``kubectl noderuntime``."""

from __future__ import annotations

import argparse
from typing import Any

import noderuntime

_EXIT_STATUS = """\
exit status:
  0  the command did what it was asked to do
  1  it failed: one line on stderr says what is wrong and what to do
  2  the command line is wrong
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    made = argparse.ArgumentParser(
        prog="kubectl noderuntime",
        description="Show and steer NodeRuntimes, and explain why a pod does not run.",
        epilog=_EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[connection(default=None)],
    )
    made.add_argument("--version", action="version", version=f"%(prog)s {noderuntime.__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_readers(commands)
    _add_writers(commands)
    return made


def _add_readers(commands: Any) -> None:
    """Add the commands that only read."""
    status = _command(commands, "status", "show conditions, rollout, handlers and nodes of NodeRuntimes")
    status.add_argument("name", nargs="?", metavar="NAME", help="the NodeRuntime (default: all)")
    status.add_argument("--all", action="store_true", help="name every node")
    _add_output(status)
    watch = _command(
        commands, "watch", "show the status live: a tree on a terminal, else a line for each change"
    )
    watch.add_argument("name", nargs="?", metavar="NAME", help="the NodeRuntime (default: all)")
    _add_output(watch)
    why = _command(commands, "why", "explain in one paragraph why a pod does not run")
    why.add_argument("pod", metavar="POD", help="the pod")
    _add_output(why)
    history = _command(commands, "history", "list the revisions of a NodeRuntime, the newest first")
    history.add_argument("name", metavar="NAME", help="the NodeRuntime")
    _add_output(history)


def _add_writers(commands: Any) -> None:
    """Add the commands that change something."""
    pause = _command(commands, "pause", "change no more nodes; those that are changing finish")
    pause.add_argument("name", metavar="NAME", help="the NodeRuntime")
    resume = _command(commands, "resume", "continue a paused rollout")
    resume.add_argument("name", metavar="NAME", help="the NodeRuntime")
    retry = _command(commands, "retry", "try a version again that failed and was rolled back")
    retry.add_argument(
        "node", metavar="NODE", help="the node, or noderuntime/NAME for a revision of all nodes"
    )
    rollback = _command(commands, "rollback", "make an earlier revision the target of all nodes")
    rollback.add_argument("name", metavar="NAME", help="the NodeRuntime")
    target = rollback.add_mutually_exclusive_group()
    target.add_argument("--to", metavar="REVISION", help="default: the last good revision")
    target.add_argument("--cancel", action="store_true", help="make the spec the target again")


def _command(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    """Return the parser of one command. Options of the connection can stand before or after its name."""
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary, parents=[connection(default=argparse.SUPPRESS)]
    )
    return made


def connection(default: str | None) -> argparse.ArgumentParser:
    """Return a parser of kubectl's options that select cluster and namespace."""
    made = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    made.add_argument("--context", default=default, metavar="NAME", help="context of the kubeconfig")
    made.add_argument("--kubeconfig", default=default, metavar="FILE", help="path of the kubeconfig")
    made.add_argument("-n", "--namespace", default=default, metavar="NAME", help="namespace of the pod")
    return made


def _add_output(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        *("-o", "--output"), choices=("text", "json"), default="text", help="output format (default: text)"
    )
