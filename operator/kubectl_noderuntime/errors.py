"""The errors that end a command. Each message is one line: what is wrong, and what to do.

PluginError
├── Unreadable   the kubeconfig names no cluster that can be used
└── Refused      the API server refused a request, or is unreachable (status 0)
"""

from __future__ import annotations


class PluginError(Exception):
    """A command failed; the message is for its user."""


class Unreadable(PluginError):
    """The kubeconfig is missing, invalid, or lacks the requested context."""


class Refused(PluginError):
    """The API server refused a request with this HTTP status, or is unreachable (status 0)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_forbidden(self) -> bool:
        """Whether the user lacks a permission."""
        return self.status == 403

    @property
    def is_lasting(self) -> bool:
        """Whether the same request would be refused again: a user must change something."""
        return self.status in (400, 401, 403, 404, 422)

    @property
    def is_missing(self) -> bool:
        """Whether the object or its kind does not exist."""
        return self.status == 404
