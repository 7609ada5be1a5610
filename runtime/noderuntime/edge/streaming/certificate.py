"""The streaming server's TLS certificate, which is renewed while the server runs."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from noderuntime.core import log
from noderuntime.core.blocking import apart
from noderuntime.core.errors import InvalidArgument, NoderuntimeError

_log = log.get(__name__)

_CHECK_SECONDS = 10.0
"""How often the files are checked for changes."""

_Stamp = tuple[tuple[int, int] | None, ...]


class Certificate:
    """A certificate and its key, in two PEM files. New connections get what the files contained last."""

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert = cert
        self._key = key
        self._stamp: _Stamp = ()
        self._current: ssl.SSLContext

    async def load(self) -> ssl.SSLContext:
        """Read the files and return the context of the server. InvalidArgument if they are invalid."""
        self._stamp, self._current = await apart(self._read, what="read the streaming certificate")
        server = self._current
        server.sni_callback = self._select  # called in each handshake, also without a server name
        return server

    async def follow(self) -> None:
        """Read the files again when they have changed, until cancelled. Invalid ones are not used."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            try:
                await self._refresh()
            except NoderuntimeError as error:
                _log.warning("streaming certificate not renewed", error=error)

    async def _refresh(self) -> None:
        what, subject = "read the streaming certificate", str(self._cert)
        stamp = await apart(self._stamp_files, what=what, subject=subject, abandon=True)
        if stamp != self._stamp:
            self._stamp = stamp  # also of invalid files, so that they are reported once
            self._stamp, self._current = await apart(self._read, what=what, subject=subject, abandon=True)
            _log.info("streaming certificate renewed", file=self._cert)

    def _select(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str, _server: ssl.SSLContext) -> None:
        connection.context = self._current

    def _stamp_files(self) -> _Stamp:
        return tuple(_stamp(file) for file in (self._cert, self._key))

    def _read(self) -> tuple[_Stamp, ssl.SSLContext]:
        """Return a context, and the stamp of the files before they were read."""
        stamp, context = self._stamp_files(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self._cert, self._key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument(f"streaming.tls_cert, streaming.tls_key: {error}") from error
        return stamp, context


def _stamp(file: Path) -> tuple[int, int] | None:
    """Return what differs when a file has changed or was replaced; None for a missing one."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
