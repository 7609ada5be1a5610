"""``python -m critest [--setting NAME] [--handler NAME] [critest's flags]``: run the suite.

Setting ``delegate``: the daemon runs in front of a real containerd. Without a handler every pod of
the suite is containerd's, which tests that calls pass through unchanged; with one, the daemon's.
Setting ``alone``: the daemon is the only runtime. Setting ``bare``: containerd only, to compare.
Reports are in build/critest, named after setting and handler.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

from critest import suite, verdict
from critest.expected import MAY_SKIP, NOT_THROUGH_CONTAINERD, not_in_gvisor
from critest.images import DIGEST_IMAGE, images
from critest.node import Node, Setting
from critest.registry import Registry

_REPORTS = Path(__file__).resolve().parents[2] / "build" / "critest"


def main() -> int:
    """Run the suite, print unexpected outcomes and a summary; return status 1 if there are any."""
    parser = argparse.ArgumentParser(prog="critest", description=__doc__)
    parser.add_argument("--handler", default="", help="runtime handler of the suite's pods")
    parser.add_argument("--setting", choices=get_args(Setting), default="delegate")
    chosen, flags = parser.parse_known_args()
    impossible = not_in_gvisor() if chosen.handler == "gvisor" else ()
    name = "-".join(filter(None, (chosen.setting, chosen.handler, "part" if flags else "")))
    if chosen.setting == "delegate" and not chosen.handler:
        flags += [f"--ginkgo.skip={one}" for one in NOT_THROUGH_CONTAINERD]
    runs = _runs(name, flags, impossible)
    _REPORTS.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="noderuntime-critest-")))
        stack.callback(_unmount, directory)
        registry = Registry(directory)
        stack.callback(registry.close)
        program = suite.build(_push_all(registry))
        node = stack.enter_context(Node(directory, registry.address, chosen.setting))
        with ThreadPoolExecutor(len(runs)) as pool:
            run = functools.partial(_run_suite, program, directory, node.socket, chosen.handler)
            reports = list(pool.map(run, runs, runs.values()))
    outcomes = verdict.read(reports)
    bad = list(verdict.complaints(outcomes, impossible, MAY_SKIP if chosen.setting == "alone" else None))
    for line in bad:
        print(line)
    print(verdict.closing(outcomes, impossible))
    return 1 if bad else 0


def _runs(name: str, flags: Sequence[str], impossible: Sequence[str]) -> dict[str, Sequence[str]]:
    """Split the specs into parallel runs by name, because those that cannot pass mostly wait."""
    if not impossible or flags:
        return {name: flags}
    half = len(impossible) // 2
    return {
        name: [f"--ginkgo.skip={_any(impossible)}"],
        f"{name}-listed-1": [f"--ginkgo.focus={_any(impossible[:half])}"],
        f"{name}-listed-2": [f"--ginkgo.focus={_any(impossible[half:])}"],
    }


def _any(specs: Sequence[str]) -> str:
    return "|".join(map(re.escape, specs))


def _push_all(registry: Registry) -> str:
    """Push all images; return the digest of the one that has no tag."""
    digests = {repository: registry.push(repository, tags, image) for repository, tags, image in images()}
    return digests[DIGEST_IMAGE]


def _unmount(directory: Path) -> None:
    """Unmount the mounts that failed specs left below a directory."""
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in reversed([place for place in places if place.startswith(f"{directory}/")]):
        subprocess.run(["umount", place], check=True)


def _run_suite(
    program: Path, directory: Path, socket: Path, handler: str, name: str, flags: Sequence[str]
) -> Path:
    """Run critest with these flags; return its JUnit file."""
    report = _REPORTS / f"{name}.xml"
    report.unlink(missing_ok=True)
    command = [
        str(program),
        f"--runtime-endpoint=unix://{socket}",
        f"--image-endpoint=unix://{socket}",
        f"--ginkgo.junit-report={report}",
        "--ginkgo.no-color",
        *([f"--runtime-handler={handler}"] if handler else []),
        *flags,
    ]
    with (_REPORTS / f"{name}.log").open("w") as log:
        environment = {**os.environ, "TMPDIR": str(directory)}  # its temporary files
        subprocess.run(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, timeout=3000, check=False
        )
    return report


if __name__ == "__main__":
    sys.exit(main())
