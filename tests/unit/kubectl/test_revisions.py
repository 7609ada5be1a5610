"""``kubectl noderuntime history`` and ``rollback``: revisions and their order."""

from __future__ import annotations

from typing import Any

import pytest
from manifests import runtime

from kubectl_noderuntime.control import choose
from kubectl_noderuntime.errors import PluginError
from kubectl_noderuntime.history import Revision, revisions


def kept(*names: str) -> list[dict[str, Any]]:
    """Return the ControllerRevisions with these names, the oldest first."""
    return [
        {
            "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "revision": number,
            "data": {"image": f"example.test/noderuntime:{name}"},
        }
        for number, name in enumerate(names, 1)
    ]


def test_history_is_newest_first_with_states() -> None:
    status = {"currentRevision": "a", "updateRevision": "c", "failedRevision": {"revision": "b"}}
    found = revisions(runtime(**status), kept("a", "b", "c"))
    created = "2026-01-01T00:00:00Z"
    assert found == [
        Revision("c", 3, "example.test/noderuntime:c", created, "target"),
        Revision("b", 2, "example.test/noderuntime:b", created, "failed"),
        Revision("a", 1, "example.test/noderuntime:a", created, "current"),
    ]


@pytest.mark.parametrize(
    ("current", "target", "chosen"),
    [("a", "c", "a"), ("c", "c", "b"), ("", "c", "b"), ("gone", "c", "b"), ("", "", "b")],
)
def test_rollback_chooses_the_last_revision_of_all_nodes(current: str, target: str, chosen: str) -> None:
    found = runtime(currentRevision=current, updateRevision=target)
    assert choose(found, revisions(found, kept("a", "b", "c")), None) == chosen


def test_rollback_to_an_unknown_revision_names_the_kept_ones() -> None:
    found = runtime()
    with pytest.raises(PluginError) as failed:
        choose(found, revisions(found, kept("a", "b")), "z")
    assert str(failed.value) == "NodeRuntime default has no revision z (kept revisions: b, a)"


def test_rollback_without_an_earlier_revision_is_refused() -> None:
    found = runtime(currentRevision="a", updateRevision="a")
    with pytest.raises(PluginError) as failed:
        choose(found, revisions(found, kept("a")), None)
    assert (
        str(failed.value)
        == "NodeRuntime default has no earlier revision (kubectl noderuntime history default)"
    )
