"""Reading the kubeconfigs that the harness writes."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
from pathlib import Path


def admin(kubeconfig: Path) -> tuple[str, ssl.SSLContext]:
    """Return the API server's URL and a TLS context with the user's certificate."""
    found = json.loads(kubeconfig.read_text())
    cluster, user = found["clusters"][0]["cluster"], found["users"][0]["user"]
    tls = ssl.create_default_context(cadata=_decode(cluster["certificate-authority-data"]).decode())
    with tempfile.NamedTemporaryFile() as pair:
        pair.write(_decode(user["client-key-data"]) + _decode(user["client-certificate-data"]))
        pair.flush()
        tls.load_cert_chain(pair.name)
    return cluster["server"], tls


def _decode(value: str) -> bytes:
    return base64.b64decode(value)
