"""A fuzzer for SPDY sessions: ``python tests/fuzz/fuzz_spdy.py --runs 100000 --seed 7``.

Every input is a mutation of a client's valid frames. The session must accept it or raise
SpdyError, buffer at most one control frame, and answer with a bounded number of bytes per received
byte. A failure reports its number; ``--first NUMBER --runs 1`` with the same seed repeats it.

It needs ``tests/clients`` on PYTHONPATH. A coverage-guided fuzzer can call :func:`target` itself.
"""

from __future__ import annotations

import argparse
import random
import sys

from spdyclient import PING, RST_STREAM, SpdyClient, control, data

from noderuntime.edge.streaming.spdy import Opened, ServerSession, SpdyError
from noderuntime.edge.streaming.spdy.frames import LONGEST_CONTROL

_STREAMS = 8


def target(sent: bytes, cut: int) -> None:
    """Feed one input in two pieces; raise AssertionError if the session violates its contract."""
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
    """Return valid frames of a client."""
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
    """Return the input with bytes changed, a part removed or a part repeated."""
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


def main() -> int:
    """Fuzz SPDY sessions and print the number of inputs."""
    parser = argparse.ArgumentParser(description="Fuzz the SPDY session with mutated client frames.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--runs", type=int, default=100_000, help="how many inputs")
    options = parser.parse_args()
    for number in range(options.first, options.first + options.runs):
        chance = random.Random(f"{options.seed} {number}")
        sent = mutated(seed_input(chance), chance)
        try:
            target(sent, chance.randint(0, len(sent)))
        except BaseException:
            print(f"input {number} of seed {options.seed}", file=sys.stderr)
            raise
    print(f"{options.runs} inputs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
