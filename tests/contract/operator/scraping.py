"""A real Prometheus that scrapes metrics of operator and agents."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from control_plane import eventually, free_port, stop, tool


class Prometheus:
    """A running Prometheus, which scrapes every second."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the result of an instant query; fail the test if it is invalid."""
        answer = self._get("/api/v1/query", query=expression)
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])

    def is_ready(self) -> bool:
        """Return whether Prometheus answers queries."""
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _get(self, path: str, **query: str) -> dict[str, Any]:
        url = f"{self._url}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return dict(json.load(answer))


@contextlib.contextmanager
def scraping(directory: Path, targets: Mapping[str, Mapping[str, str]]) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes these addresses with additional labels, until the block ends."""
    jobs = [
        {
            "job_name": f"job{number}",
            "static_configs": [{"targets": [address], "labels": dict(labels)}],
        }
        for number, (address, labels) in enumerate(targets.items())
    ]
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        tool("prometheus"),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        server = Prometheus(port)
        eventually(server.is_ready, f"Prometheus does not start, see {directory / 'prometheus.log'}")
        yield server
    finally:
        stop(process)
