"""CRI ImageService on a node with the native image store."""

from __future__ import annotations

import json
import time

from noderuntime.cri.v1 import api_pb2
from noderuntime.images.backends.native import NativeBackend
from noderuntime.images.base import Image
from noderuntime.images.credentials import from_cri


class ImageService:
    """ImageService over the native store. Each method implements the CRI call of its name."""

    def __init__(self, images: NativeBackend) -> None:
        self._images = images

    async def ListImages(self, request: api_pb2.ListImagesRequest) -> api_pb2.ListImagesResponse:
        """List images from memory."""
        return api_pb2.ListImagesResponse(images=self._list(request.filter))

    async def StreamImages(self, request: api_pb2.StreamImagesRequest) -> api_pb2.StreamImagesResponse:
        """List images in one message."""
        return api_pb2.StreamImagesResponse(images=self._list(request.filter))

    async def ImageStatus(self, request: api_pb2.ImageStatusRequest) -> api_pb2.ImageStatusResponse:
        """Return an image; an empty response if it does not exist. Verbose adds its config as JSON."""
        found = self._images.status(request.image.image)
        if found is None:
            return api_pb2.ImageStatusResponse()
        response = api_pb2.ImageStatusResponse(image=_described(found))
        if request.verbose:
            config = json.loads(await self._images.config(found))
            response.info["info"] = json.dumps({"chainID": found.chain_id, "imageSpec": config})
        return response

    async def PullImage(self, request: api_pb2.PullImageRequest) -> api_pb2.PullImageResponse:
        """Pull an image and return its ID."""
        name = request.image.image
        credentials = from_cri(request.auth, self._images.registry_of(name))
        return api_pb2.PullImageResponse(image_ref=await self._images.pull(name, credentials))

    async def RemoveImage(self, request: api_pb2.RemoveImageRequest) -> api_pb2.RemoveImageResponse:
        """Remove an image and all its names. A missing image is not an error."""
        await self._images.remove(request.image.image)
        return api_pb2.RemoveImageResponse()

    async def ImageFsInfo(self, request: api_pb2.ImageFsInfoRequest) -> api_pb2.ImageFsInfoResponse:
        """Return the disk usage of images. Containers write to the same filesystem."""
        used = await self._images.fs_info()
        usage = api_pb2.FilesystemUsage(
            timestamp=time.time_ns(),
            fs_id=api_pb2.FilesystemIdentifier(mountpoint=used.path),
            used_bytes=api_pb2.UInt64Value(value=used.used_bytes),
            inodes_used=api_pb2.UInt64Value(value=used.inodes_used),
        )
        return api_pb2.ImageFsInfoResponse(image_filesystems=[usage], container_filesystems=[usage])

    def _list(self, wanted: api_pb2.ImageFilter) -> list[api_pb2.Image]:
        return [_described(image) for image in self._images.list_images(wanted.image.image)]


def _described(image: Image) -> api_pb2.Image:
    """Return CRI's description of an image, with either the number or the name of its user."""
    described = api_pb2.Image(
        id=image.id,
        repo_tags=image.repo_tags,
        repo_digests=image.repo_digests,
        size=image.size,
        pinned=image.pinned,
    )
    user = image.config.user.partition(":")[0]
    if user.isascii() and user.isdecimal() and int(user[:20]) < 1 << 32:
        described.uid.value = int(user)
    else:
        described.username = user
    return described
