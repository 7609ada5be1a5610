"""``kubectl noderuntime status``: the tree as text, its colours and its bounds."""

from __future__ import annotations

import json
import time

import pytest
from manifests import condition, handler, instance, runtime
from rich.console import Console

from kubectl_noderuntime import output
from kubectl_noderuntime.report import as_dict, reports
from kubectl_noderuntime.tree import forest

BOTH = [handler("runc"), handler("gvisor")]


def drawn(runtimes: list[dict], instances: list[dict], *, every: bool = False) -> str:  # type: ignore[type-arg]
    console = Console(width=200, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(forest(reports(runtimes, instances), every=every))
    return captured.get()


def test_tree_of_a_finished_rollout() -> None:
    status = {
        "desiredNodes": 2,
        "readyNodes": 2,
        "currentRevision": "b2",
        "updateRevision": "b2",
        "wave": {"phase": "Complete", "nodes": 2, "updated": 2, "ready": 2, "failed": 0, "outside": 0},
        "conditions": [
            condition("Ready", "True", "AllNodesReady", "2 of 2 nodes are ready"),
            condition("Progressing", "False", "Complete", "all nodes are up to date"),
        ],
    }
    nodes = [instance(name, handlers=BOTH) for name in ("n2", "n1")]
    assert drawn([runtime(**status)], nodes) == (
        "NodeRuntime default: 2 of 2 nodes ready\n"
        "├── conditions\n"
        "│   ├── Ready       True    AllNodesReady: 2 of 2 nodes are ready\n"
        "│   └── Progressing False   Complete: all nodes are up to date\n"
        "├── rollout: Complete, 2 of 2 nodes updated, 2 ready\n"
        "│   └── revision b2\n"
        "├── handlers\n"
        "│   ├── runc (Runc, RuntimeClass runc): Ready on 2\n"
        "│   └── gvisor (GVisor, RuntimeClass gvisor): Ready on 2\n"
        "└── 2 nodes, as their agents report\n"
        "    └── 2 Ready on 0.1.0: n1, n2\n"
    )


def test_tree_of_a_rollout_that_stopped() -> None:
    status = {
        "desiredNodes": 5,
        "readyNodes": 3,
        "currentRevision": "a1",
        "updateRevision": "b2",
        "failedRevision": {"revision": "c3", "message": "2 of 5 nodes failed"},
        "wave": {
            **{"phase": "Stopped", "nodes": 5, "updated": 2, "ready": 1, "failed": 1, "outside": 1},
            "waitingFor": "n1: SwitchReverted",
        },
        "failingNodes": [{"name": "n1", "reason": "SwitchReverted", "message": "not Ready after 120 s"}],
        "reasons": [{"reason": "SwitchReverted", "nodes": 1}],
        "outsideNodes": [{"name": "n9", "reason": "Skipped"}],
    }
    failed = [condition("Ready", "False", "SwitchReverted", "not Ready after 120 s")]
    broken = [handler("runc"), handler("gvisor", "Broken", "runsc: no memory")]
    nodes = [
        instance("n1", "Failed", conditions=failed),
        instance("n2", "Degraded", handlers=broken, runtimeVersion="0.2.0"),
        instance("n3", handlers=BOTH),
        instance("n4", handlers=BOTH, generation=2),
        instance("n5", ""),
    ]
    assert drawn([runtime(paused=True, deleting=True, **status)], nodes) == (
        "NodeRuntime default: 3 of 5 nodes ready, being deleted, paused\n"
        "├── rollout: Stopped, 2 of 5 nodes updated, 1 ready, 1 failed\n"
        "│   ├── revision b2, from a1\n"
        "│   ├── revision c3 failed: 2 of 5 nodes failed\n"
        "│   ├── waits for n1: SwitchReverted\n"
        "│   └── 1 left out: n9 (Skipped)\n"
        "├── failing: 1 SwitchReverted\n"
        "│   └── n1: SwitchReverted: not Ready after 120 s\n"
        "├── handlers\n"
        "│   ├── runc (Runc, RuntimeClass runc): Ready on 3\n"
        "│   └── gvisor (GVisor, RuntimeClass gvisor): Ready on 2, Broken on 1\n"
        "└── 5 nodes, as their agents report\n"
        "    ├── 1 Degraded (HandlerBroken) on 0.2.0: n2\n"
        "    ├── 1 Failed (SwitchReverted) on 0.1.0: n1\n"
        "    ├── 1 Pending: n5\n"
        "    ├── 1 Updating on 0.1.0: n4\n"
        "    └── 1 Ready on 0.1.0: n3\n"
    )


def test_tree_before_the_operator_reported() -> None:
    assert drawn([runtime()], []) == (
        "NodeRuntime default: the operator has not reported yet\n"
        "├── handlers\n"
        "│   ├── runc (Runc, RuntimeClass runc): no report\n"
        "│   └── gvisor (GVisor, RuntimeClass gvisor): no report\n"
        "└── 0 nodes, as their agents report\n"
    )


def test_tree_of_two_runtimes_keeps_their_nodes_apart() -> None:
    text = drawn([runtime("b"), runtime("a")], [instance("n1", owner="b"), instance("n2", owner="a")])
    lines = [line for line in text.splitlines() if "NodeRuntime" in line or ": n" in line]
    assert lines == [
        "NodeRuntime a: the operator has not reported yet",
        "│   ├── runc (Runc, RuntimeClass runc): no report",
        "│   └── gvisor (GVisor, RuntimeClass gvisor): no report",
        "    └── 1 Ready on 0.1.0: n2",
        "NodeRuntime b: the operator has not reported yet",
        "│   ├── runc (Runc, RuntimeClass runc): no report",
        "│   └── gvisor (GVisor, RuntimeClass gvisor): no report",
        "    └── 1 Ready on 0.1.0: n1",
    ]


def test_tree_names_five_nodes_of_a_group_or_all() -> None:
    nodes = [instance(f"n{number}") for number in range(7)]
    assert (
        drawn([runtime()], nodes).splitlines()[-1]
        == "    └── 7 Ready on 0.1.0: n0, n1, n2, n3, n4 and 2 more"
    )
    every = drawn([runtime()], nodes, every=True).splitlines()[-1]
    assert every == "    └── 7 Ready on 0.1.0: n0, n1, n2, n3, n4, n5, n6"


def test_tree_of_five_thousand_nodes_is_small_and_fast() -> None:
    nodes = [
        instance(f"n{number}", runtimeVersion=f"0.{number % 300}.0", handlers=BOTH) for number in range(5000)
    ]
    started = time.process_time()
    lines = drawn([runtime()], nodes).splitlines()
    assert time.process_time() - started < 2
    assert len(lines) == 16
    assert lines[-1] == "    └── 4830 in 290 more groups (--all shows them)"
    assert max(map(len, lines)) < 120


def test_hostile_messages_reach_no_terminal() -> None:
    evil = "\x1b]0;owned\x07 [red]x[/red] \x9b31m :boom: \n\r\u202e"
    failed = [condition("Ready", "False", evil, evil)]
    status = {
        "conditions": failed,
        "failingNodes": [{"name": "n1", "reason": evil, "message": evil}],
        "reasons": [{"reason": evil, "nodes": 1}],
        "wave": {"phase": evil, "waitingFor": evil},
        "updateRevision": evil,
    }
    text = drawn([runtime(**status)], [instance("n1", "Failed", conditions=failed, runtimeVersion=evil)])
    assert not set(text) & set("\x1b\x07\x9b\r\u202e")
    assert text.count("\\x1b]0;owned\\x07 [red]x[/red] \\x9b31m :boom:") == 10


def test_json_has_status_handlers_and_every_node() -> None:
    found = reports([runtime(desiredNodes=1, readyNodes=1)], [instance("n1", handlers=[handler("gvisor")])])
    assert as_dict(found[0]) == {
        "name": "default",
        "deleting": False,
        "paused": False,
        "pinned": "",
        "handlers": [
            {"name": "runc", "type": "Runc", "runtime_class": "runc", "states": {}},
            {"name": "gvisor", "type": "GVisor", "runtime_class": "gvisor", "states": {"Ready": 1}},
        ],
        "nodes": [{"name": "n1", "phase": "Ready", "version": "0.1.0", "reason": "", "message": ""}],
        "desiredNodes": 1,
        "readyNodes": 1,
    }


def test_json_escapes_everything_that_a_terminal_could_run() -> None:
    text = output.as_json({"message": "\x1b\x7f\x9b\u202e"})
    assert text.isprintable()
    assert json.loads(text) == {"message": "\x1b\x7f\x9b\u202e"}


@pytest.mark.parametrize(
    ("terminal", "no_color", "coloured"), [(True, "", True), (True, "1", False), (False, "", False)]
)
def test_colours_need_a_terminal_and_no_no_color(
    terminal: bool,
    no_color: str,
    coloured: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    output.show(forest(reports([runtime(conditions=[condition("Ready", "True")])], [])))
    assert ("\x1b[" in capsys.readouterr().out) is coloured
