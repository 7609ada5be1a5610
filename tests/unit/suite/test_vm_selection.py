from __future__ import annotations

import re
from pathlib import Path

_TESTS = Path(__file__).parents[2]


def test_contract_tests_left_out_of_the_vm_exist() -> None:
    names = set(re.findall(r'"(test_\w+)"', (_TESTS / "vm/payload.py").read_text(encoding="utf-8")))
    contract = "\n".join(path.read_text(encoding="utf-8") for path in (_TESTS / "contract").glob("test_*.py"))
    assert names
    assert names <= set(re.findall(r"def (test_\w+)", contract))
