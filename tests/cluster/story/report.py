"""The demo's output: titles of steps, their seconds, and measured figures."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Report:
    """The seconds per step, and the measured figures."""

    seconds: dict[str, float] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print the title, and record the duration of the step."""
        print(f"\n== {len(self.seconds) + 1}. {title}", flush=True)
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[title] = round(time.monotonic() - began, 1)

    def print_table(self, file: Path) -> None:
        """Print all figures, and write them to a file as JSON."""
        rows = {f"{title}, s": value for title, value in self.seconds.items()} | self.numbers
        width = max(len(name) for name in rows)
        print("\n" + "\n".join(f"{name:<{width}}  {value:10.2f}" for name, value in rows.items()))
        file.parent.mkdir(exist_ok=True)
        content = {"seconds": self.seconds, "numbers": self.numbers}
        file.write_text(json.dumps(content, indent=1) + "\n")


def say(text: str) -> None:
    """Print the text of a step, indented."""
    print("   " + text.strip().replace("\n", "\n   "), flush=True)
