"""TLS contexts for registries, created off the event loop and cached until their files change."""

from __future__ import annotations

import ssl
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from noderuntime.core.blocking import IMAGES
from noderuntime.core.errors import InvalidArgument, invalid_argument
from noderuntime.images.registry.endpoints import Tls

_KEPT = 64

_SYSTEM_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),
    Path("/etc/ssl/ca-bundle.pem"),
    Path("/etc/ssl/cert.pem"),
)
"""CA bundles of the distributions, for an OpenSSL whose default path does not exist on this host."""

_Stamp = tuple[tuple[str, int, int], ...]


class TlsContexts:
    """A cache of TLS contexts by settings. A changed certificate file causes a new context."""

    def __init__(self) -> None:
        self._contexts: OrderedDict[tuple[Tls, _Stamp], ssl.SSLContext] = OrderedDict()

    async def get(self, tls: Tls) -> ssl.SSLContext:
        """Return the TLS context for a server. InvalidArgument, naming the file, if a file cannot be used."""
        key = (tls, await IMAGES.run(_stamp, tls))
        context = self._contexts.get(key)
        if context is None:
            context = self._contexts[key] = await IMAGES.run(_make, tls)
            if len(self._contexts) > _KEPT:
                self._contexts.popitem(last=False)
        self._contexts.move_to_end(key)
        return context


def _files(tls: Tls) -> list[Path]:
    return [*tls.ca, *(file for pair in tls.client for file in pair if file)]


def _stamp(tls: Tls) -> _Stamp:
    stamps = []
    for file in _files(tls):
        try:
            status = file.stat()
        except OSError as error:
            raise invalid_argument(f"certificate {file}", error) from error
        stamps.append((str(file), status.st_mtime_ns, status.st_ino))
    return tuple(stamps)


def _make(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"]:
        for bundle in _SYSTEM_BUNDLES:
            if bundle.exists():
                context.load_verify_locations(bundle)
                break
    for file in tls.ca:
        with _naming(file):
            context.load_verify_locations(file)
    for cert, key in tls.client:
        with _naming(cert):
            context.load_cert_chain(cert, key, password=_no_password)
    if tls.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Raise errors of the block as InvalidArgument that names the file."""
    try:
        yield
    except ssl.SSLError as error:
        raise InvalidArgument(f"certificate {file}: {error.reason or 'not PEM'}") from error
    except OSError as error:
        raise invalid_argument(f"certificate {file}", error) from error
    except ValueError as error:
        raise InvalidArgument(f"certificate {file}: its key is encrypted, which is not supported") from error


def _no_password() -> str:
    """Prevent OpenSSL from prompting for the password of an encrypted key."""
    raise ValueError
