"""The CRI socket. Only root can connect; the file that a killed daemon left behind is replaced."""

from __future__ import annotations

import socket
from pathlib import Path

import grpc

from noderuntime.core.errors import AlreadyExists, FailedPrecondition, HostError
from noderuntime.edge.router.upstream import MAX_MESSAGE_BYTES

SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", 3 * MAX_MESSAGE_BYTES),  # a joined list, the two streams of an exec
    ("grpc.so_reuseport", 0),
)
_PROBE_SECONDS = 1.0


def make_way(path: Path) -> None:
    """Create the directory and remove a socket file that no process serves.

    Raises AlreadyExists if a process serves it, FailedPrecondition if the path is not a socket.
    """
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    if not path.exists() and not path.is_symlink():
        return
    if path.is_symlink() or not path.is_socket():
        raise FailedPrecondition(f"{path} exists and is not a socket: remove it or change server.socket")
    if _is_served(path):
        raise AlreadyExists(f"another program already serves {path}")
    path.unlink(missing_ok=True)


def bind(server: grpc.aio.Server, path: Path) -> None:
    """Bind the server to the socket, to which only root can connect.

    To connect takes the permission to write, which the process's umask (:mod:`noderuntime.cli.serve`)
    withholds from others until the mode is set. The umask is not changed here: other threads create files.
    """
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise HostError(f"bind {path}", 0, str(error)) from error
    path.chmod(0o600)


def _is_served(path: Path) -> bool:
    """Return whether a process serves the socket. A full backlog and a timeout count as served."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        return True
