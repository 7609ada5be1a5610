"""Builds the native backend. Only this module imports the HTTP client, which takes 20 MiB of memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from noderuntime.config import ImagesConfig
from noderuntime.images.backends.native import NativeBackend
from noderuntime.images.credentials import CredentialsFile
from noderuntime.images.registry.client import Registry
from noderuntime.images.registry.hosts import Hosts
from noderuntime.images.store.store import open_store
from noderuntime.node.host.base import Host
from noderuntime.node.layers.pool import Unpackers
from noderuntime.node.layers.tar.limits import Limits


class Opened(NamedTuple):
    """An open native backend."""

    backend: NativeBackend
    configure: Callable[[ImagesConfig], None]
    """Apply the registries, names and credentials of other settings, from the next pull on.

    InvalidArgument changes nothing.
    """


@asynccontextmanager
async def open_native(settings: ImagesConfig, root: Path, host: Host, boot: str) -> AsyncIterator[Opened]:
    """Open the store in a directory and yield the backend. Errors as of :func:`open_store`.

    ``boot`` identifies the current boot of the machine.
    """
    async with AsyncExitStack() as stack:
        unpackers = Unpackers()
        stack.push_async_callback(unpackers.close)
        await unpackers.prepare()
        store = await open_store(root, host, boot)
        hosts, credentials = Hosts(()), CredentialsFile(None)
        registry = Registry(hosts, credentials)
        backend = NativeBackend(store, registry, unpackers)
        stack.push_async_callback(backend.close)

        def configure(wanted: ImagesConfig) -> None:
            backend.configure(wanted.search, wanted.pinned, _limits(wanted))
            hosts.use(wanted.certs_dirs)
            registry.http_redirects = wanted.http_redirects
            credentials.use(wanted.credentials)

        configure(settings)
        yield Opened(backend, configure)


def _limits(settings: ImagesConfig) -> Limits:
    return Limits(size=settings.max_image_size, free_disk=settings.min_free_disk)
