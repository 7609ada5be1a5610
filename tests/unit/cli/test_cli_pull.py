"""Progress bars of ``noderuntime images pull``."""

from __future__ import annotations

from noderuntime.cli.pull import Screen, lines
from noderuntime.cri.images import images_pb2


def _layer(received: int, stage: str, digest: str = "sha256:" + "ab" * 32) -> images_pb2.Layer:
    return images_pb2.Layer(digest=digest, size=3000, received=received, stage=stage)


def test_lines_show_the_received_share_of_each_layer() -> None:
    waiting, half, done = lines([_layer(0, "waiting"), _layer(1500, "downloading"), _layer(0, "done")])
    assert waiting.split() == ["ababababababa", "[" + "." * 30 + "]", "2.9", "KiB", "waiting"]
    assert "[" + "#" * 15 + "." * 15 + "]" in half
    assert "[" + "#" * 30 + "]" in done, "a layer that exists already is complete"


def test_lines_escape_strings_of_a_registry() -> None:
    [line] = lines([_layer(9000, "unpacking\x1b[2J", digest="\x1b]0;x")])
    assert line.isprintable()
    assert "#" * 30 in line, "the bar is capped when more arrives than announced"


def test_screen_draws_on_terminals_only(capsys) -> None:
    progress = images_pb2.PullProgress(layers=[_layer(1, "downloading")])
    Screen(shown=False).show(progress)
    assert capsys.readouterr().err == ""
    screen = Screen(shown=True)
    screen.show(progress)
    screen.show(progress)
    assert capsys.readouterr().err.count("\x1b[1A") == 1, "the second drawing replaces the first"
