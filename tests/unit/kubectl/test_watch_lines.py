"""``kubectl noderuntime watch`` in a pipe: one line for each change."""

from __future__ import annotations

from manifests import condition, instance, runtime

from kubectl_noderuntime.changes import Changes
from kubectl_noderuntime.report import reports


def test_first_lines_are_about_runtimes_and_not_about_nodes() -> None:
    changes = Changes()
    wave = {"phase": "Rolling", "updated": 1, "nodes": 2}
    ready = condition("Ready", "False", "Installing", "1 of 2 nodes are ready")
    found = reports([runtime(desiredNodes=2, readyNodes=1, wave=wave, conditions=[ready])], [instance("n1")])
    assert changes.since_last(found) == [
        ("noderuntime/default", "nodes", "1 of 2 nodes ready"),
        ("noderuntime/default", "rollout", "Rolling, 1 of 2 updated, 0 failed"),
        ("noderuntime/default", "Ready", "False Installing: 1 of 2 nodes are ready"),
        ("apiserver", "connection", "up"),
    ]


def test_later_lines_are_what_changed_and_what_is_gone() -> None:
    changes = Changes()
    changes.since_last(reports([runtime()], [instance("n1"), instance("n2"), instance("n3")]))
    failed = [condition("Ready", "False", "SwitchReverted", "not Ready after 120 s")]
    found = reports([runtime(paused=True)], [instance("n1"), instance("n2", "Failed", conditions=failed)])
    assert changes.since_last(found) == [
        ("noderuntime/default", "nodes", "the operator has not reported yet, paused"),
        ("node/n2", "phase", "Failed (SwitchReverted): not Ready after 120 s"),
        ("node/n3", "phase", "deleted"),
    ]
    assert changes.since_last(found) == []


def test_lost_connection_is_a_line_and_so_is_its_return() -> None:
    changes = Changes()
    found = reports([runtime()], [])
    changes.since_last(found)
    assert changes.since_last(found, ["no answer"]) == [("apiserver", "connection", "no answer")]
    assert changes.since_last(found) == [("apiserver", "connection", "up")]
