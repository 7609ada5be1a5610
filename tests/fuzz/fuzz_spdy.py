"""Fuzz target of the SPDY parser: ``make fuzz``, or ``fuzz_spdy.py [SECONDS] [SEED]``.

Mutates what a client sends. Whatever comes out, the session must understand it or raise SpdyError,
keep no more than one control frame, and answer with no more than a few bytes for each byte it got.
"""

from __future__ import annotations

import random
import sys
import time

from spdyclient import PING, RST_STREAM, SpdyClient, control, data

from noderuntime.streaming.spdy import Opened, ServerSession, SpdyError
from noderuntime.streaming.spdy.frames import LONGEST_CONTROL

_STREAMS = 8


def target(sent: bytes, cut: int) -> None:
    """Feed one input in two pieces; AssertionError when the session misbehaves."""
    server, answered = ServerSession(_STREAMS), 0
    try:
        for piece in (sent[:cut], sent[cut:]):
            for event in server.receive(piece):
                if isinstance(event, Opened):
                    server.accept(event.stream_id)
            answered += len(server.take_output())
    except SpdyError:
        pass
    assert len(server._frames._buffer) <= LONGEST_CONTROL + 8
    assert len(server._streams) <= _STREAMS
    assert answered <= 3 * len(sent), f"{answered} bytes for {len(sent)}"


def seed_input(chance: random.Random) -> bytes:
    """Say something that a client could say."""
    client, sent = SpdyClient(), b""
    for _ in range(chance.randint(1, 12)):
        stream_id = chance.randrange(1, client.next_id + 2, 2)
        sent += chance.choice(
            [
                client.open({"streamtype": chance.choice(["stdin", "error", "data"]), "port": "80"}),
                data(stream_id, chance.randbytes(chance.randint(0, 40)), fin=chance.random() < 0.3),
                control(PING, chance.randbytes(4)),
                control(RST_STREAM, stream_id.to_bytes(4, "big") + bytes(4)),
            ]
        )
    return sent


def mutated(sent: bytes, chance: random.Random) -> bytes:
    """Change a few bytes, cut, or say a part twice."""
    changed = bytearray(sent)
    for _ in range(chance.randint(0, 6)):
        position = chance.randrange(len(changed))
        match chance.randrange(3):
            case 0:
                changed[position] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
            case 1:
                del changed[position : position + chance.randint(1, 4)]
            case _:
                changed[position:position] = changed[position : position + chance.randint(1, 40)]
        if not changed:
            return b""
    return bytes(changed)


def main() -> None:
    """Run for that long and say how many inputs there were; a failure names its seed."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns()
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        chance = random.Random(seed + count)
        sent = mutated(seed_input(chance), chance)
        try:
            target(sent, chance.randint(0, len(sent)))
        except Exception:
            print(f"seed {seed + count} fails: {sent.hex()}")
            raise
        count += 1
    print(f"{count} inputs from seed {seed} on")


if __name__ == "__main__":
    main()
