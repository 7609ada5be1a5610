"""The service of ``noderuntime images``: pulls with progress, and image archives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from google.protobuf import message_factory

from noderuntime.core import tasks
from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.images import images_pb2
from noderuntime.edge.server.dispatch import Extra
from noderuntime.images.backends.native import NativeBackend
from noderuntime.images.progress import Progress

_PROGRESS_SECONDS = 0.1
"""Seconds between two progress messages."""


class StoreService:
    """The service ``noderuntime.images.v1.Images``. Each method implements the call of its name."""

    def __init__(self, images: NativeBackend) -> None:
        self._images = images

    def calls(self) -> dict[str, Extra]:
        """Return the calls by their path."""
        service = images_pb2.DESCRIPTOR.services_by_name["Images"]
        return {
            f"/{service.full_name}/{call.name}": Extra(
                message_factory.GetMessageClass(call.input_type), getattr(self, call.name)
            )
            for call in service.methods
        }

    async def Pull(self, request: images_pb2.PullRequest) -> AsyncGenerator[images_pb2.PullProgress]:
        """Pull an image with the node's credentials. Yields the progress and, last, the image's ID."""
        seen: list[Progress] = []
        changed = asyncio.Event()

        def watch(progress: Progress) -> None:
            seen[:] = [progress]
            changed.set()

        async with tasks.Scope() as scope:
            pull = scope.start(self._images.pull(request.image, watch=watch), name="pull for a watcher")
            while not pull.done():
                await _either(pull, changed)
                changed.clear()
                yield images_pb2.PullProgress(layers=_layers(seen))
                await asyncio.wait([pull], timeout=_PROGRESS_SECONDS)
            image_id = await pull
            yield images_pb2.PullProgress(layers=_layers(seen), image_id=image_id)

    async def Load(self, request: images_pb2.LoadRequest) -> AsyncGenerator[images_pb2.LoadResponse]:
        """Load the images of an archive on the node."""
        path = Path(request.path)
        if not path.is_absolute() or "\0" in request.path:
            raise InvalidArgument(f"archive {request.path[:200]!r} is not an absolute path")
        yield images_pb2.LoadResponse(image_ids=await self._images.load(path))


async def _either(pull: asyncio.Task[str], changed: asyncio.Event) -> None:
    async with tasks.Scope() as scope:
        await tasks.first(pull, scope.start(changed.wait(), name="await progress of a pull"))


def _layers(seen: Sequence[Progress]) -> list[images_pb2.Layer]:
    return [
        images_pb2.Layer(digest=one.digest, size=one.size, received=one.received, stage=one.stage)
        for progress in seen
        for one in progress.layers
    ]
