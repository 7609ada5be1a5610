"""An image backend on the node's containerd: root filesystems are snapshots in its snapshotter.

Nothing is stored twice. A snapshot is named after its container and is a root of containerd's garbage
collection, so that it and its parents exist until :meth:`ContainerdBackend.release`, even if the image
is removed meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from google.protobuf import empty_pb2

from noderuntime.core import log, tasks
from noderuntime.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NoderuntimeError,
    NotFound,
    Unimplemented,
)
from noderuntime.images import oci
from noderuntime.images import platforms as choice
from noderuntime.images.backends.containerd_api import (
    content_pb2,
    images_pb2,
    introspection_pb2,
    snapshots_pb2,
    types_pb2,
)
from noderuntime.images.backends.containerd_client import ContainerdClient
from noderuntime.images.base import Image, ImageConfig, SnapshotUsage
from noderuntime.images.reference import stored_name
from noderuntime.node.host.base import Host, Mount, UserNamespace

_log = log.get(__name__)

_IMAGES = "containerd.services.images.v1.Images"
_CONTENT = "containerd.services.content.v1.Content"
_INTROSPECTION = "containerd.services.introspection.v1.Introspection"
_SNAPSHOTS = "containerd.services.snapshots.v1.Snapshots"

_PREFIX = "noderuntime-"
_GC_ROOT = "containerd.io/gc.root"

_DOCUMENT_LIMIT = 8 << 20
_CACHE_LIMIT = 256


@dataclass(frozen=True, slots=True)
class _Resolved:
    """The result of resolving an index or manifest for this machine. It is constant for a digest."""

    id: str
    chain_id: str
    config: ImageConfig


class ContainerdBackend:
    """:class:`noderuntime.images.base.ImageBackend` over containerd's gRPC services."""

    def __init__(self, host: Host, client: ContainerdClient, snapshotter: str) -> None:
        self._host = host
        self._client = client
        self._snapshotter = snapshotter
        self._root = ""
        self._resolved: OrderedDict[str, _Resolved] = OrderedDict()

    async def image(self, ref: str) -> Image:
        """Return the image with an ID, tag or digest, as containerd's CRI plugin stored it."""
        name = stored_name(ref)
        request = images_pb2.GetImageRequest(name=name)
        try:
            found = await self._client.call(f"{_IMAGES}/Get", request, images_pb2.GetImageResponse.FromString)
        except NotFound as error:
            raise NotFound(f"image {ref[:200]!r} is not on this node") from error
        resolved = await self._resolve(found.image.target)
        tags, digests = await self._names(found.image.target.digest)
        return Image(resolved.id, resolved.chain_id, resolved.config, tags, digests)

    async def prepare(
        self,
        key: str,
        image: Image,
        target: Path,
        labels: Mapping[str, str],
        user: UserNamespace | None = None,
    ) -> None:
        """Create a snapshot of the image and mount it. Both are removed after an error.

        FailedPrecondition if the image was not unpacked on this node, AlreadyExists if the key is in use.
        A cancelled call waits for the end and undoes it: containerd could otherwise create the snapshot after
        we removed it.
        """
        work = tasks.start(self._prepare(key, image, target, labels, user), name="prepare a snapshot")
        try:
            await tasks.settle(work)
        except asyncio.CancelledError:
            if work.exception() is None:
                await tasks.finish(self._undo(key, target), name="undo a snapshot")
            raise
        work.result()

    async def volume(self, key: str, image: Image, target: Path, sub_path: str = "") -> Path:
        """Raise Unimplemented: containerd's garbage collection would have to know the view."""
        raise Unimplemented("image volumes are not supported with the images of containerd")

    async def release(self, key: str, target: Path) -> None:
        """Unmount the target and remove the snapshot. Idempotent."""
        await self._host.unmount(target)
        await self._remove(key)

    async def keys(self) -> set[str]:
        """Return the IDs of the containers with a snapshot."""
        request = snapshots_pb2.ListSnapshotsRequest(
            snapshotter=self._snapshotter, filters=[f'name~="^{_PREFIX}"']
        )
        parse = snapshots_pb2.ListSnapshotsResponse.FromString
        found: set[str] = set()
        async with aclosing(self._client.stream(f"{_SNAPSHOTS}/List", request, parse)) as parts:
            async for part in parts:
                found.update(info.name.removeprefix(_PREFIX) for info in part.info)
        return found

    async def usage(self, key: str) -> SnapshotUsage:
        """Return a writable layer's disk usage. containerd walks its files, so do not call it in a list."""
        request = snapshots_pb2.UsageRequest(snapshotter=self._snapshotter, key=_PREFIX + key)
        used = await self._client.call(f"{_SNAPSHOTS}/Usage", request, snapshots_pb2.UsageResponse.FromString)
        return SnapshotUsage(used.size, used.inodes)

    async def filesystem(self) -> str:
        """Return the snapshotter's root directory, which is cached."""
        if not self._root:
            request = introspection_pb2.PluginsRequest(
                filters=[f"type==io.containerd.snapshotter.v1,id=={self._snapshotter}"]
            )
            parse = introspection_pb2.PluginsResponse.FromString
            reply = await self._client.call(f"{_INTROSPECTION}/Plugins", request, parse)
            roots = [plugin.exports["root"] for plugin in reply.plugins if "root" in plugin.exports]
            if not roots:
                raise NotFound(f"containerd has no snapshotter {self._snapshotter}")
            self._root = roots[0]
        return self._root

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def _prepare(
        self,
        key: str,
        image: Image,
        target: Path,
        labels: Mapping[str, str],
        user: UserNamespace | None,
    ) -> None:
        try:
            mounts = await self._snapshot(key, image, labels)
            await self._host.mount(_as_mount(mounts, target, user))
        except (AlreadyExists, FailedPrecondition):
            raise
        except NoderuntimeError:
            await self._undo(key, target)
            raise

    async def _snapshot(self, key: str, image: Image, labels: Mapping[str, str]) -> Sequence[types_pb2.Mount]:
        request = snapshots_pb2.PrepareSnapshotRequest(
            snapshotter=self._snapshotter,
            key=_PREFIX + key,
            parent=image.chain_id,
            labels={**labels, _GC_ROOT: datetime.now(UTC).isoformat(timespec="seconds")},
        )
        parse = snapshots_pb2.PrepareSnapshotResponse.FromString
        try:
            return (await self._client.call(f"{_SNAPSHOTS}/Prepare", request, parse)).mounts
        except NotFound as error:
            raise FailedPrecondition(
                f"image {image.id} is on this node but not unpacked for snapshotter {self._snapshotter}"
            ) from error

    async def _undo(self, key: str, target: Path) -> None:
        try:
            await self.release(key, target)
        except NoderuntimeError as error:
            _log.warning("snapshot of a failed prepare was not removed", container=key, error=error)

    async def _remove(self, key: str) -> None:
        request = snapshots_pb2.RemoveSnapshotRequest(snapshotter=self._snapshotter, key=_PREFIX + key)
        with suppress(NotFound):
            await self._client.call(f"{_SNAPSHOTS}/Remove", request, empty_pb2.Empty.FromString)

    async def _names(self, digest: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the tags and the digests of the image."""
        request = images_pb2.ListImagesRequest(filters=[f"target.digest=={digest}"])
        listed = await self._client.call(f"{_IMAGES}/List", request, images_pb2.ListImagesResponse.FromString)
        names = sorted(image.name for image in listed.images)
        digests = tuple(name for name in names if "@" in name)
        tags = tuple(name for name in names if "@" not in name and not name.startswith("sha256:"))
        return tags, digests

    async def _resolve(self, target: types_pb2.Descriptor) -> _Resolved:
        """Resolve an index or manifest to its config. The result is cached by digest."""
        known = self._resolved.get(target.digest)
        if known is None:
            manifest = await self._manifest(target)
            config = oci.read(oci.Config, await self._document(manifest.config.digest))
            known = _Resolved(
                manifest.config.digest, oci.chain_id(config.rootfs.diff_ids), oci.container_defaults(config)
            )
            self._resolved[target.digest] = known
            if len(self._resolved) > _CACHE_LIMIT:
                self._resolved.popitem(last=False)
        self._resolved.move_to_end(target.digest)
        return known

    async def _manifest(self, target: types_pb2.Descriptor) -> oci.Manifest:
        """Return the manifest for this machine. containerd has only the pulled parts of an index."""
        if target.media_type in oci.MANIFEST_TYPES:
            return oci.read(oci.Manifest, await self._document(target.digest))
        if target.media_type not in oci.INDEX_TYPES:
            raise InvalidArgument(f"image {target.digest} has unknown media type {target.media_type[:100]!r}")
        index = await self._document(target.digest)
        try:
            _, raw = await choice.manifest_in(index, lambda entry: self._document(entry.digest))
        except NotFound as error:
            raise NotFound(f"image {target.digest}: {error}") from error
        return oci.read(oci.Manifest, raw)

    async def _document(self, digest: str) -> bytes:
        """Return a small blob. Internal if it does not match its digest."""
        content = bytearray()
        request = content_pb2.ReadContentRequest(digest=digest, size=0)
        parse = content_pb2.ReadContentResponse.FromString
        async with aclosing(self._client.stream(f"{_CONTENT}/Read", request, parse)) as parts:
            async for part in parts:
                content += part.data
                if len(content) > _DOCUMENT_LIMIT:
                    raise InvalidArgument(f"image document {digest} is larger than 8 MiB")
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
            raise Internal(f"image document {digest} does not match its digest")
        return bytes(content)


def _as_mount(mounts: Sequence[types_pb2.Mount], target: Path, user: UserNamespace | None) -> Mount:
    if len(mounts) != 1:
        raise Internal(f"the snapshotter returned {len(mounts)} mounts for a snapshot, only one is supported")
    [only] = mounts
    bind = only.type == "bind"
    return Mount(
        source=only.source,
        target=target,
        fstype="" if bind else only.type,
        options=(*(("rbind",) if bind else ()), *only.options),
        user=user,
    )
