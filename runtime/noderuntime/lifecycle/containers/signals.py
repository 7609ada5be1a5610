"""Stop signals: convert between CRI's enum, the names in images, and the kernel's numbers. Pure."""

from __future__ import annotations

import re
import signal

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2

_CRI_NAMES = frozenset(api_pb2.Signal.keys())
_REALTIME = re.compile(r"SIGRT(MIN|MAX)(?:(?:\+|PLUS|-|MINUS)(\d+))?")


def stop_signal(wanted: api_pb2.Signal, of_image: str) -> int:
    """Return the number of the signal that asks a container to stop.

    The pod's setting takes precedence over the image's ``StopSignal`` (a name with or without ``SIG``, or a
    number). SIGTERM if neither is set, or Linux does not have the image's. InvalidArgument for the pod's.
    """
    if wanted != api_pb2.RUNTIME_DEFAULT:
        return _number(api_pb2.Signal.Name(wanted))
    try:
        return _number(of_image.strip())
    except InvalidArgument:
        return signal.SIGTERM


def to_cri(number: int) -> api_pb2.Signal:
    """Return CRI's value for a signal number; RUNTIME_DEFAULT if CRI does not name the signal."""
    if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
        up, down = number - signal.SIGRTMIN, signal.SIGRTMAX - number
        name = _realtime_name(up, down)
    else:
        name = next((s.name for s in signal.Signals if s == number), "")
    of_cri: api_pb2.Signal = getattr(api_pb2, name if name in _CRI_NAMES else "RUNTIME_DEFAULT")
    return of_cri


def _realtime_name(up: int, down: int) -> str:
    if up == 0:
        return "SIGRTMIN"
    if down == 0:
        return "SIGRTMAX"
    return f"SIGRTMINPLUS{up}" if up <= 15 else f"SIGRTMAXMINUS{down}"


def _number(name: str) -> int:
    if name.isdecimal() and 1 <= int(name[:4]) <= signal.SIGRTMAX:
        return int(name[:4])
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    realtime = _REALTIME.fullmatch(full)
    if realtime:
        base, sign = (signal.SIGRTMIN, 1) if realtime[1] == "MIN" else (signal.SIGRTMAX, -1)
        number = base + sign * int(realtime[2] or 0)
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    elif full in signal.Signals.__members__:
        return signal.Signals[full]
    raise InvalidArgument(f"stop signal {name[:40]!r} is unknown (examples: SIGTERM, SIGRTMIN+3, 15)")
