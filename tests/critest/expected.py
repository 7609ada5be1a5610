"""Specs that pods of our handlers cannot pass, each with its reason; anything else that fails is a bug."""

from __future__ import annotations

_STREAMING = "Exec, Attach and PortForward are not offered for pods of our handlers yet"

NOT_OFFERED = {
    r"\[k8s\.io\] Streaming runtime should support streaming interfaces": _STREAMING,
}
