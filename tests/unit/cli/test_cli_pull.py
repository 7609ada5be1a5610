"""How far a pull is, as a person sees it."""

from __future__ import annotations

from noderuntime.cli.pull import Screen, lines
from noderuntime.cri.images import images_pb2


def _layer(received: int, stage: str, digest: str = "sha256:" + "ab" * 32) -> images_pb2.Layer:
    return images_pb2.Layer(digest=digest, size=3000, received=received, stage=stage)


def test_a_line_has_what_came_of_how_much() -> None:
    waiting, half, done = lines([_layer(0, "waiting"), _layer(1500, "downloading"), _layer(0, "done")])
    assert waiting.split() == ["ababababababa", "[" + "." * 30 + "]", "2.9", "KiB", "waiting"]
    assert "[" + "#" * 15 + "." * 15 + "]" in half
    assert "[" + "#" * 30 + "]" in done, "a layer that was there already is complete"


def test_nothing_of_a_registry_reaches_the_terminal_as_it_is() -> None:
    [line] = lines([_layer(9000, "unpacking\x1b[2J", digest="\x1b]0;x")])
    assert line.isprintable()
    assert "#" * 30 in line, "more than was promised is no longer a bar"


def test_bars_are_for_terminals_only(capsys) -> None:
    told = images_pb2.PullProgress(layers=[_layer(1, "downloading")])
    Screen(shown=False).show(told)
    assert capsys.readouterr().err == ""
    screen = Screen(shown=True)
    screen.show(told)
    screen.show(told)
    assert capsys.readouterr().err.count("\x1b[1A") == 1, "the second is drawn over the first"
