"""The real docker-registry: plain, with TLS, with passwords, with tokens, all with one storage."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from realnode.tools import tool

from registries.content import Content

_LISTENS = re.compile(r"listening on 127\.0\.0\.1:([0-9]+)")


class RealRegistry:
    """One process on its own port. ``stop`` ends it."""

    def __init__(self, directory: Path, storage: Path, name: str, **settings: Any) -> None:
        self._log = directory / f"{name}.log"
        config = directory / f"{name}.json"  # JSON is valid YAML
        http = {"addr": "127.0.0.1:0", **settings.pop("http", {})}
        config.write_text(
            json.dumps(
                {
                    "version": "0.1",
                    "log": {"level": "info", "accesslog": {"disabled": False}},
                    "storage": {"filesystem": {"rootdirectory": str(storage)}, "redirect": {"disable": True}},
                    "http": http,
                    **settings,
                }
            )
        )
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [tool("docker-registry"), "serve", str(config)], stdout=log, stderr=log, cwd=directory
            )
        self.authority = f"127.0.0.1:{self._port()}"

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def push(self, repository: str, content: Content) -> None:
        """Upload all content, to a registry without TLS and access control."""
        for digest, blob in content.blobs.items():
            with self._ask("POST", f"/v2/{repository}/blobs/uploads/") as answer:
                location = answer.headers["Location"]
            joint = "&" if "?" in location else "?"
            kind = {"Content-Type": "application/octet-stream"}
            self._ask("PUT", f"{location}{joint}{urlencode({'digest': digest})}", blob, kind).close()
        for digest, (media_type, raw) in content.manifests.items():
            names = [tag for tag, named in content.tags.items() if named == digest] or [digest]
            for name in names:
                kind = {"Content-Type": media_type}
                self._ask("PUT", f"/v2/{repository}/manifests/{name}", raw, kind).close()

    def _ask(self, method: str, url: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Any:
        url = url if "://" in url else f"http://{self.authority}{url}"
        request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
        return urllib.request.urlopen(request, timeout=20)

    def _port(self) -> str:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            if found := _LISTENS.search(self.log()):
                return found.group(1)
            time.sleep(0.02)
        self.stop()
        raise AssertionError(f"docker-registry does not listen:\n{self.log()}")
