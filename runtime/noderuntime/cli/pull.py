"""``noderuntime images pull``: Pull an image from its registry, with a progress bar for each layer."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import aclosing

from noderuntime.cli import options, text
from noderuntime.cri.images import images_pb2
from noderuntime.criclient import CriClient

_UP, _CLEAR = "\x1b[{}A", "\x1b[K"
_BAR = 30


def run(arguments: Sequence[str]) -> int:
    """Pull an image through the daemon and print its ID."""
    parser = options.parser("images pull", __doc__)
    parser.add_argument("image", help="name of the image, with a tag or a digest")
    args = parser.parse_args(arguments)
    screen = Screen(shown=sys.stderr.isatty())

    async def pull(client: CriClient) -> str:
        image_id = ""
        async with aclosing(client.pull(args.image)) as messages:
            async for progress in messages:
                screen.show(progress)
                image_id = progress.image_id or image_id
        return image_id

    print(options.call(args.socket, pull))
    return 0


class Screen:
    """Progress bars on a terminal, redrawn in place. Draws nothing if ``shown`` is false."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._drawn = 0

    def show(self, progress: images_pb2.PullProgress) -> None:
        """Draw the progress of the last layers, as many as fit on the terminal."""
        if not self._shown or not progress.layers:
            return
        fits = max(1, shutil.get_terminal_size().lines - 1)
        drawn = list(lines(progress.layers))[-fits:]
        up = _UP.format(self._drawn) if self._drawn else ""
        sys.stderr.write(up + "".join(f"{line}{_CLEAR}\n" for line in drawn))
        sys.stderr.flush()
        self._drawn = len(drawn)


def lines(layers: Sequence[images_pb2.Layer]) -> Iterator[str]:
    """Return a line for each layer: digest, bar, size, stage."""
    for layer in layers:
        share = min(1.0, layer.received / layer.size) if layer.size else 1.0
        full = _BAR if layer.stage == "done" else int(share * _BAR)
        bar = "#" * full + "." * (_BAR - full)
        name = text.printable(text.short_id(layer.digest))
        yield f"{name}  [{bar}]  {text.size(layer.size):>8}  {text.printable(layer.stage)}"
