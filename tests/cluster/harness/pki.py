"""Certificates of a cluster, created with the openssl command."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.run import run

_DAYS = "30"
_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-batch")


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its private key, as PEM files."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """A certificate authority in its own directory."""

    pair: KeyPair
    directory: Path

    @classmethod
    def open(cls, directory: Path, name: str) -> Authority:
        """Return the authority in the directory, created on the first call."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        pair = KeyPair(directory / f"{name}-ca.crt", directory / f"{name}-ca.key")
        if not pair.cert.exists():
            run("openssl", "req", "-x509", *_EC, "-subj", f"/CN={name}-ca", "-days", _DAYS,
                "-keyout", str(pair.key), "-out", str(pair.cert))  # fmt: skip
        return cls(pair, directory)

    def issue(self, file: str, common_name: str, organization: str = "", names: str = "") -> KeyPair:
        """Return the pair with that file name, signed on the first call.

        names is an openssl subjectAltName, for example ``IP:10.0.0.1,DNS:localhost``.
        """
        pair = KeyPair(self.directory / f"{file}.crt", self.directory / f"{file}.key")
        if pair.cert.exists():
            return pair
        subject = f"/O={organization}/CN={common_name}" if organization else f"/CN={common_name}"
        alternative = ("-addext", f"subjectAltName={names}") if names else ()
        run("openssl", "req", "-x509", *_EC, "-subj", subject, "-days", _DAYS,
            "-CA", str(self.pair.cert), "-CAkey", str(self.pair.key),
            "-addext", "basicConstraints=critical,CA:FALSE",
            "-addext", "extendedKeyUsage=clientAuth,serverAuth", *alternative,
            "-keyout", str(pair.key), "-out", str(pair.cert))  # fmt: skip
        return pair


def signing_key(directory: Path, file: str) -> KeyPair:
    """Return a key for service account tokens; cert is its public half."""
    pair = KeyPair(directory / f"{file}.pub", directory / f"{file}.key")
    if not pair.key.exists():
        run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(pair.key))
        run("openssl", "ec", "-in", str(pair.key), "-pubout", "-out", str(pair.cert))
    return pair


def kubeconfig(server: str, authority: Authority, user: KeyPair) -> str:
    """Return a self-contained kubeconfig (JSON, which is YAML)."""
    cluster = {"server": server, "certificate-authority-data": _data(authority.pair.cert)}
    identity = {"client-certificate-data": _data(user.cert), "client-key-data": _data(user.key)}
    content: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "user", "user": identity}],
        "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": "user"}}],
        "current-context": "cluster",
    }
    return json.dumps(content, indent=1)


def _data(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
