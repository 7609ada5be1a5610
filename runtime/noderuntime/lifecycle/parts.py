"""The objects that verbs use; the composition root creates them once.

Verbs (``pods/run.py``, ``containers/stop.py`` …) are functions whose first argument is :class:`Parts`; they
have no state of their own. The ledger records past events, and :class:`noderuntime.core.tasks.Work` holds the
calls in progress.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from noderuntime.config import Config, ImagesConfig
from noderuntime.core.errors import InvalidArgument
from noderuntime.core.paths import Paths
from noderuntime.core.retries import Retries
from noderuntime.core.tasks import Work
from noderuntime.images.base import ImageBackend
from noderuntime.lifecycle.events import EventHub
from noderuntime.lifecycle.ledger.ledger import Ledger
from noderuntime.lifecycle.metrics.base import Metrics
from noderuntime.lifecycle.stats.collect import StatsCollector
from noderuntime.node.executor.base import Executor
from noderuntime.node.executor.probes import Probes
from noderuntime.node.host.base import Host
from noderuntime.node.host.cgroup_names import CgroupDriver
from noderuntime.node.monitor.base import Monitor
from noderuntime.node.network.base import Network
from noderuntime.node.spec.cdi.catalog import Catalog
from noderuntime.node.spec.facts import HostFacts


@dataclass(slots=True)
class Parts:
    """The daemon's parts."""

    config: Config
    """The configuration in force; a reload replaces it."""
    paths: Paths
    ledger: Ledger
    host: Host
    executors: dict[str, Executor]
    """The handlers by name, in their configured order; changed in place by a reload."""
    probes: Probes
    facts: HostFacts
    monitor: Monitor
    images: ImageBackend
    network: Network
    stats: StatsCollector
    cdi: Catalog
    cgroup_driver: CgroupDriver = "cgroupfs"
    events: EventHub = field(default_factory=EventHub)
    work: Work = field(default_factory=Work)
    retries: Retries = field(default_factory=Retries)
    metrics: Metrics = field(default_factory=Metrics)
    configure_images: Callable[[ImagesConfig], None] = lambda _: None
    """Applies the live settings of images. After InvalidArgument nothing has changed."""

    def executor(self, handler: str) -> Executor:
        """Return the executor of a handler; the InvalidArgument for an unknown one lists all handlers."""
        executor = self.executors.get(handler)
        if executor is None:
            known = ", ".join(sorted(self.executors))
            raise InvalidArgument(f"no runtime handler {handler[:80]!r} on this node (known: {known})")
        return executor
