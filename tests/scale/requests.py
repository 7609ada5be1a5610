"""The operator's requests, counted in the API server's audit log."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


class RequestMeter:
    """The requests since this object was created."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._offset = log.stat().st_size if log.exists() else 0

    def counts(self) -> Counter[tuple[str, str]]:
        """Return the number of requests by verb and resource."""
        found: Counter[tuple[str, str]] = Counter()
        with self._log.open("rb") as log:
            log.seek(self._offset)
            for line in log:
                if line.endswith(b"\n"):
                    entry = json.loads(line)
                    if entry["stage"] != "ResponseStarted":
                        found[entry["verb"], _resource(entry)] += 1
        return found

    def writes_and_reads(self) -> tuple[int, int]:
        """Return the numbers of writes and of reads."""
        counts = self.counts()
        writes = sum(count for (verb, _), count in counts.items() if verb in WRITES)
        return writes, sum(counts.values()) - writes


def _resource(entry: dict[str, dict[str, str]]) -> str:
    found = entry.get("objectRef", {})
    return "/".join(part for part in (found.get("resource"), found.get("subresource")) if part)
