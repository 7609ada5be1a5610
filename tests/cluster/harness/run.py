"""Running programs and waiting for conditions."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


class CommandError(RuntimeError):
    """A program failed; the message contains the end of its output."""

    def __init__(self, argv: tuple[str, ...], status: int, output: str) -> None:
        super().__init__(f"{' '.join(argv[:6])}: exit status {status}: {output.strip()[-2000:]}")
        self.status = status
        self.output = output


class WaitError(TimeoutError):
    """A condition did not become true in time; the message names it and the last error."""


def run(
    *argv: str,
    stdin: str | None = None,
    timeout: float = 120,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a program and return its standard output; raise CommandError with its errors if it fails."""
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, timeout=timeout, env=env, check=False,
        stdin=subprocess.DEVNULL if stdin is None else None,
    )  # fmt: skip
    if done.returncode != 0:
        raise CommandError(argv, done.returncode, done.stderr or done.stdout)
    return done.stdout


def succeeds(*argv: str, timeout: float = 60) -> bool:
    """Run a program and return whether it exits with status 0."""
    try:
        run(*argv, timeout=timeout)
    except (CommandError, subprocess.TimeoutExpired):
        return False
    return True


def wait_for(what: str, probe: Callable[[], T | None], timeout: float, every: float = 0.25) -> T:
    """Call probe until it returns a true value, and return the value.

    A CommandError of the probe counts as false. Raises WaitError after timeout seconds.
    """
    deadline = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            last = seen = probe()
            if seen:
                return seen
        except (CommandError, subprocess.TimeoutExpired) as error:
            last = error
        if time.monotonic() > deadline:
            raise WaitError(f"{what}: not within {timeout:g} s; last seen: {last}")
        time.sleep(every)
