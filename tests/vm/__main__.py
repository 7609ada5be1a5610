"""``python -m vm [pytest's arguments]``: boot the machine and run the smoke set in it.

The console of the machine is written to ``build/vm/console.log``, the tests' output to ``smoke.log``.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
from pathlib import Path

from harness.paths import REPO
from vm.machine import booted
from vm.payload import write_payload
from vm.system import system

_REPORTS = REPO / "build" / "vm"
_LAST_LINE = "smoke set: exit status "
_TIMEOUT = 2400.0


def main(arguments: list[str]) -> int:
    """Return the tests' exit status; 1 if the machine did not report one."""
    _REPORTS.mkdir(parents=True, exist_ok=True)
    status = 1
    with tempfile.TemporaryDirectory(prefix="noderuntime-vm-") as scratch:
        payload = Path(scratch, "payload.ext4")
        write_payload(payload, shlex.join(arguments))
        began = time.monotonic()
        with (
            (_REPORTS / "smoke.log").open("w", buffering=1) as log,
            booted(system(), payload, _REPORTS / "console.log", timeout=_TIMEOUT) as lines,
        ):
            for line in lines:
                print(line, flush=True)
                log.write(f"{line}\n")
                if line.startswith(_LAST_LINE):
                    status = int(line.removeprefix(_LAST_LINE))
    print(f"vm: status {status} after {time.monotonic() - began:.0f} s; the machine's console: {_REPORTS}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
