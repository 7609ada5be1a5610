"""Certificates for tests: a CA, servers for 127.0.0.1 and localhost, clients."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from realnode.tools import tool


@dataclass(frozen=True)
class Pair:
    cert: Path
    key: Path


class Authority:
    """A CA made with openssl in a directory that the caller removes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.pair = Pair(directory / "ca.crt", directory / "ca.key")
        _openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test authority"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-keyout", self.pair.key, "-out", self.pair.cert),
        )

    def issue(self, name: str) -> Pair:
        """Issue a certificate for this machine."""
        pair = Pair(self._directory / f"{name}.crt", self._directory / f"{name}.key")
        _openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={name}"),
            *("-CA", self.pair.cert, "-CAkey", self.pair.key),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-keyout", pair.key, "-out", pair.cert),
        )
        return pair


def sign(key: Path, message: bytes) -> bytes:
    """Sign with RSA and SHA-256."""
    command = [tool("openssl"), "dgst", "-sha256", "-sign", key]
    return subprocess.run(command, input=message, capture_output=True, check=True).stdout


def _openssl(*arguments: str | Path) -> None:
    subprocess.run([tool("openssl"), *arguments], check=True, capture_output=True)
