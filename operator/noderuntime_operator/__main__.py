"""``noderuntime-operator``: run the operator until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import logging
import os

import kopf

import noderuntime_operator.handlers  # noqa: F401 - registers the handlers with kopf
from noderuntime_operator.settings import AgentSettings


class _KeyValues(logging.Formatter):
    """A log line: a constant message, then its values as key=value."""

    _standard = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        extra = {
            k: v for k, v in vars(record).items() if k not in self._standard and not k.startswith("k8s_")
        }
        return " ".join([super().format(record), *(f"{key}={value!r}" for key, value in extra.items())])


def main() -> None:
    """Run the operator. The environment variable NODERUNTIME_AGENT holds the agents' settings as JSON."""
    parser = argparse.ArgumentParser(prog="noderuntime-operator", description=main.__doc__)
    parser.add_argument("--health-port", type=int, default=8080, help="port of /healthz (default: 8080)")
    parser.add_argument("--metrics-port", type=int, default=8081, help="port of /metrics (default: 8081)")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    options = parser.parse_args()
    _set_up_logging(options.log_level)
    agent = AgentSettings.model_validate_json(os.environ["NODERUNTIME_AGENT"])
    kopf.run(
        standalone=True,
        namespaces=[agent.namespace],
        liveness_endpoint=f"http://{_listen_address()}:{options.health_port}/healthz",
        memo=kopf.Memo(metrics_port=options.metrics_port),
    )


def _listen_address() -> str:
    """Return the address of all interfaces in the family of the pod's first address: probes use that one."""
    return "[::]" if ":" in os.environ.get("POD_IP", "") else "0.0.0.0"  # noqa: S104 - the kubelet is not local


def _set_up_logging(level: str) -> None:
    """Log to stderr, without kopf's lines for every event and aiohttp's for every probe."""
    handler = logging.StreamHandler()
    handler.setFormatter(_KeyValues("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for noisy in ("kopf.objects", "kopf.activities.probe", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


if __name__ == "__main__":
    main()
