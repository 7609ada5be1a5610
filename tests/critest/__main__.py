"""``python -m critest [--setting NAME] [--handler NAME] [critest's own flags]``: run the suite and count.

Setting ``delegate``: the daemon stands in front of a real containerd. Without a handler every pod of
the suite is containerd's, which shows that calls pass through unchanged; with one, the pods are ours.
Setting ``alone``: there is nobody else on the node. Setting ``bare``: containerd itself, to compare.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

from critest import suite
from critest.expected import NOT_OFFERED
from critest.images import DIGEST_IMAGE, images
from critest.node import Node, Setting
from critest.registry import Registry

_REPORTS = Path(__file__).resolve().parents[2] / "build" / "critest"


def main() -> int:
    """Run, print what failed and the closing line; exit status 1 when a spec failed."""
    parser = argparse.ArgumentParser(prog="critest", description=__doc__)
    parser.add_argument("--handler", default="", help="runtime handler of the suite's pods")
    parser.add_argument("--setting", choices=get_args(Setting), default="delegate")
    chosen, flags = parser.parse_known_args()
    _REPORTS.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="noderuntime-critest-")))
        registry = Registry(directory)
        stack.callback(registry.close)
        digest = _push_all(registry)
        node = stack.enter_context(Node(directory, registry.address, chosen.setting))
        ours = bool(chosen.handler) or chosen.setting == "alone"
        skipped = [f"--ginkgo.skip={'|'.join(NOT_OFFERED)}"] if ours and NOT_OFFERED else []
        _run_suite(suite.build(digest), node.socket, chosen.handler, [*skipped, *flags])
    for pattern, why in NOT_OFFERED.items() if ours else ():
        print(f"left out: {pattern}: {why}")
    return _report()


def _push_all(registry: Registry) -> str:
    """Push every image; return the digest of the one that is known by its digest alone."""
    digests = {repository: registry.push(repository, tags, image) for repository, tags, image in images()}
    return digests[DIGEST_IMAGE]


def _run_suite(program: Path, socket: Path, handler: str, flags: list[str]) -> None:
    command = [
        str(program),
        f"--runtime-endpoint=unix://{socket}",
        f"--image-endpoint=unix://{socket}",
        f"--ginkgo.junit-report={_REPORTS / 'junit.xml'}",
        "--ginkgo.no-color",
        *([f"--runtime-handler={handler}"] if handler else []),
        *flags,
    ]
    with (_REPORTS / "critest.log").open("w") as log:
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=3000, check=False)


def _report() -> int:
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for name, outcome in _outcomes():
        counts[outcome] += 1
        if outcome == "failed":
            print(f"FAILED {name}")
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 0 if counts["passed"] and not counts["failed"] else 1


def _outcomes() -> Iterator[tuple[str, str]]:
    """Yield (spec, outcome) as the suite's JUnit file has them."""
    for file in _REPORTS.glob("*.xml"):
        for case in ElementTree.parse(file).iter("testcase"):
            name = case.get("name", "")
            if not name.startswith("[It]"):
                continue
            if case.find("skipped") is not None:
                yield name, "skipped"
            else:
                bad = case.find("failure") is not None or case.find("error") is not None
                yield name, "failed" if bad else "passed"


if __name__ == "__main__":
    sys.exit(main())
