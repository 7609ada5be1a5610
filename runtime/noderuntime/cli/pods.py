"""``noderuntime pods``: List the node's pods, including those of the upstream runtime."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence

from noderuntime.cli import options, text
from noderuntime.cri.v1 import api_pb2 as cri

_HEAD = ("POD ID", "NAMESPACE", "NAME", "ATTEMPT", "STATE", "HANDLER", "AGE")
_STATES = {cri.SANDBOX_READY: "Ready", cri.SANDBOX_NOTREADY: "NotReady"}


def run(arguments: Sequence[str]) -> int:
    """Print the pods, newest first."""
    parser = options.parser("pods", __doc__)
    options.add_output(parser)
    args = parser.parse_args(arguments)
    pods = options.call(args.socket, lambda client: client.sandboxes())
    pods.sort(key=lambda pod: pod.created_at, reverse=True)
    if args.output == "json":
        sys.stdout.write(options.as_json(cri.ListPodSandboxResponse(items=pods)))
    else:
        sys.stdout.write(text.table(_HEAD, _rows(pods)))
    return 0


def _rows(pods: Iterable[cri.PodSandbox]) -> Iterable[Sequence[str]]:
    now = time.time_ns()
    for pod in pods:
        yield (
            text.short_id(pod.id),
            pod.metadata.namespace,
            pod.metadata.name,
            str(pod.metadata.attempt),
            _STATES.get(pod.state, str(pod.state)),
            pod.runtime_handler,
            text.age(pod.created_at, now),
        )
