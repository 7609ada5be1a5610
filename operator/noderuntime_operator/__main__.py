"""``noderuntime-operator``: run the operator until SIGTERM or SIGINT, or a verb of the chart's hooks."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys

import kopf

import noderuntime_operator.handlers  # noqa: F401 - registers the handlers with kopf
from noderuntime_operator.canaries import run_canaries
from noderuntime_operator.kube import Kube, KubeError
from noderuntime_operator.metrics import Metrics
from noderuntime_operator.settings import AgentSettings
from noderuntime_operator.uninstall import refusal


class _KeyValues(logging.Formatter):
    """A log line: a constant message, then its values as key=value."""

    _standard = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        extra = {
            k: v for k, v in vars(record).items() if k not in self._standard and not k.startswith("k8s_")
        }
        return " ".join([super().format(record), *(f"{key}={value!r}" for key, value in extra.items())])


def main() -> int:
    """Run the operator. The environment variable NODERUNTIME_AGENT holds the agents' settings as JSON."""
    parser = argparse.ArgumentParser(prog="noderuntime-operator", description=main.__doc__)
    parser.add_argument("--health-port", type=int, default=8080, help="port of /healthz (default: 8080)")
    parser.add_argument("--metrics-port", type=int, default=8081, help="port of /metrics (default: 8081)")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", help="default: run the operator")
    verbs.add_parser("check-uninstall", help="fail if NodeRuntimes exist")
    verbs.add_parser("canaries", help="run a pod of every RuntimeClass of every NodeRuntime")
    options = parser.parse_args()
    _set_up_logging(options.log_level)
    agent = AgentSettings.model_validate_json(os.environ["NODERUNTIME_AGENT"])
    if options.verb:
        return asyncio.run(_run_hook(options.verb, agent))
    address = listen_address(os.environ.get("POD_IP", ""))
    kopf.run(
        standalone=True,
        namespaces=[agent.namespace],
        liveness_endpoint=f"http://{address}:{options.health_port}/healthz",
        memo=kopf.Memo(metrics_port=options.metrics_port),
    )
    return 0


async def _run_hook(verb: str, agent: AgentSettings) -> int:
    """Run a hook of the chart and return its exit code; print what helm shows to the user."""
    async with await Kube.connect(agent.namespace, Metrics()) as kube:
        try:
            if verb == "canaries":
                return 0 if await run_canaries(kube, agent, print) else 1
            problem = await refusal(kube)
        except KubeError as error:
            problem = f"the API server refused a request, or is unreachable: {error}"
    print(problem or "no NodeRuntime exists")
    return 1 if problem else 0


def listen_address(pod_ip: str) -> str:
    """Return the address of all interfaces in the family of the pod's first address: probes use that one."""
    return "[::]" if ":" in pod_ip else "0.0.0.0"  # noqa: S104 - the kubelet is not local


def _set_up_logging(level: str) -> None:
    """Log to stderr, without kopf's lines for every event and aiohttp's for every probe."""
    handler = logging.StreamHandler()
    handler.setFormatter(_KeyValues("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for noisy in ("kopf.objects", "kopf.activities.probe", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
