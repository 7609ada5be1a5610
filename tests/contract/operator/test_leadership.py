"""Operators of two releases in two namespaces: one leads, the other takes over."""

from __future__ import annotations

import time

from control_plane import eventually
from release import Operator
from simulated import Cluster

TAKEOVER_SECONDS = 20.0


def test_other_release_takes_over_from_a_dead_leader(
    cluster: Cluster, operator: Operator, other_operator: Operator
) -> None:
    eventually(operator.leads, "the first operator does not lead")
    assert not other_operator.leads()
    assert other_operator.health()["leader"].startswith("another operator (noderuntime-system/")
    cluster.node("lead1", "lead")
    cluster.runtime("lead", "lead")
    eventually(lambda: cluster.instance("lead1"), "no instance")

    operator.process.kill()
    operator.process.wait()
    died = time.monotonic()
    eventually(other_operator.leads, "the other operator does not take over")
    assert time.monotonic() - died < TAKEOVER_SECONDS
    cluster.report("lead1", "Ready", lead_runc=("Ready", ""))
    eventually(lambda: cluster.has("lead", "Ready", "True", "AllNodesReady"), "the new leader does nothing")

    before = len(operator.logged())
    operator.start()
    time.sleep(3)
    assert not operator.leads(), "an operator that comes back takes the lease of a living leader"
    assert "another operator (other/" in operator.logged(before)


def test_stopped_leader_hands_over_at_once(
    cluster: Cluster, operator: Operator, other_operator: Operator
) -> None:
    eventually(operator.leads, "the first operator does not lead")
    operator.process.terminate()
    operator.process.wait(30)
    ended = time.monotonic()
    eventually(other_operator.leads, "the other operator does not take over")
    assert time.monotonic() - ended < 5
    operator.start()
