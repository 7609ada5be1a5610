"""``kubectl noderuntime why``: a pod that has no node."""

from __future__ import annotations

from manifests import condition, facts, handler, instance, pod, runtime, runtime_class

from kubectl_noderuntime.diagnosis import diagnose
from kubectl_noderuntime.facts import Facts


def explained(found: Facts) -> tuple[str, str]:
    diagnosis = diagnose(found)
    return diagnosis.cause, diagnosis.text


def test_missing_class_without_a_provider_names_both_fixes() -> None:
    assert explained(facts(pod(), runtime_class={}, runtimes=[], offered=False)) == (
        "RuntimeClassMissing",
        "Pod shop/web is pending: its RuntimeClass gvisor does not exist. No NodeRuntime has a handler for"
        " it: correct runtimeClassName, or add the handler to one.",
    )


def test_missing_class_with_a_provider_blames_the_operator() -> None:
    assert explained(facts(pod(), runtime_class={})) == (
        "RuntimeClassMissing",
        "Pod shop/web is pending: its RuntimeClass gvisor does not exist. NodeRuntime default has a handler"
        " for it: check that the operator runs.",
    )


def test_missing_class_of_a_deleted_runtime_says_so() -> None:
    found = facts(pod(), runtime_class={}, runtimes=[runtime(deleting=True)])
    assert explained(found)[1] == (
        "Pod shop/web is pending: its RuntimeClass gvisor does not exist. NodeRuntime default, which had a"
        " handler for it, is being deleted."
    )


def test_removed_class_of_a_deleted_runtime_says_so() -> None:
    found = facts(pod(), runtime_class=runtime_class(removing=True), runtimes=[runtime(deleting=True)])
    assert explained(found) == (
        "RuntimeClassRemoved",
        "Pod shop/web is pending: its RuntimeClass gvisor is being removed, because NodeRuntime default is"
        " being deleted. Delete the pod, or choose another RuntimeClass.",
    )


def test_removed_class_of_a_removed_handler_names_the_handler() -> None:
    found = facts(pod(), runtime_class=runtime_class(removing=True))
    assert explained(found)[1] == (
        "Pod shop/web is pending: its RuntimeClass gvisor is being removed, because NodeRuntime default no"
        " longer has the handler gvisor for it. Delete the pod, or choose another RuntimeClass."
    )


def test_foreign_class_of_a_needed_name_is_a_conflict() -> None:
    found = facts(pod(), runtime_class=runtime_class(owner=None))
    assert explained(found) == (
        "RuntimeClassForeign",
        "Pod shop/web is pending: its RuntimeClass gvisor belongs to no NodeRuntime. NodeRuntime default"
        " needs that name and does not take the class over: delete the class, or set runtimeClassName of"
        " the handler.",
    )


def test_foreign_class_of_our_handler_names_the_right_class() -> None:
    sandboxed = pod(
        spec={"runtimeClassName": "sandboxed"},
        conditions=(condition("PodScheduled", "False", "Unschedulable", "0/1 nodes are available"),),
    )
    found = facts(sandboxed, runtime_class=runtime_class(owner=None, name="sandboxed"))
    assert explained(found)[1] == (
        "Pod shop/web is pending: its RuntimeClass sandboxed belongs to no NodeRuntime. Use RuntimeClass"
        " gvisor of NodeRuntime default, which has its handler. The scheduler reports: 0/1 nodes are"
        " available."
    )


def test_foreign_class_of_another_handler_needs_another_runtime() -> None:
    found = facts(pod(), runtime_class=runtime_class(owner=None), runtimes=[])
    assert explained(found)[1] == (
        "Pod shop/web is pending: its RuntimeClass gvisor belongs to no NodeRuntime. Its handler gvisor"
        " must be configured in the nodes' own runtime."
    )


def test_handler_without_nodes_shows_states_and_first_failure() -> None:
    broken = [handler("gvisor", "Broken", "runsc: no memory")]
    instances = [
        instance(
            "n1",
            "Failed",
            conditions=[condition("Ready", "False", "SwitchReverted", "not Ready after 120 s")],
        ),
        instance("n2", "Degraded", handlers=broken),
        instance("n3", "Installing"),
        instance("n4", ""),
    ]
    unavailable = condition("Available", "False", "TooFewNodes", "0 of 4 nodes offer every handler")
    owner = runtime(paused=True, desiredNodes=4, conditions=[unavailable])
    found = facts(pod(), offered=False, runtimes=[owner], instances=instances)
    assert explained(found) == (
        "NoNodeOffersHandler",
        "Pod shop/web is pending: no node offers the handler gvisor. The nodes of NodeRuntime default: 1"
        " Degraded (HandlerBroken) on 0.1.0, 1 Failed (SwitchReverted) on 0.1.0, 1 Installing on 0.1.0, 1"
        " Pending. Node n2 reports: handler gvisor: runsc: no memory. Its rollout is paused: continue it"
        " with kubectl noderuntime resume default. NodeRuntime default is not Available: TooFewNodes: 0 of"
        " 4 nodes offer every handler.",
    )


def test_handler_of_a_selector_without_nodes_says_so() -> None:
    found = facts(pod(), offered=False, runtimes=[runtime(desiredNodes=0)], instances=[])
    assert explained(found)[1] == (
        "Pod shop/web is pending: no node offers the handler gvisor. NodeRuntime default selects no node:"
        " compare its spec.selector with the labels of the nodes."
    )


def test_handler_of_nodes_in_mode_manual_names_their_kubelets() -> None:
    found = facts(pod(), offered=False, instances=[instance("n1", kubelet={"state": "Upstream"})])
    assert explained(found)[1] == (
        "Pod shop/web is pending: no node offers the handler gvisor. The nodes of NodeRuntime default: 1"
        " Ready on 0.1.0. The kubelets of 1 node use another runtime."
    )


def test_handler_of_a_missing_runtime_names_the_leftover() -> None:
    found = facts(pod(), offered=False, runtimes=[], instances=[])
    assert explained(found)[1] == (
        "Pod shop/web is pending: no node offers the handler gvisor. NodeRuntime default, the owner of its"
        " RuntimeClass, does not exist: delete the RuntimeClass."
    )


def test_pod_that_fits_no_node_quotes_the_scheduler() -> None:
    message = "0/3 nodes are available: 3 Insufficient memory."
    unschedulable = pod(conditions=(condition("PodScheduled", "False", "Unschedulable", message),))
    assert explained(facts(unschedulable)) == (
        "Unschedulable",
        "Pod shop/web is pending: the scheduler finds no node for it: 0/3 nodes are available: 3"
        " Insufficient memory. The handler gvisor is ready on 1 of 1 node of NodeRuntime default.",
    )


def test_pod_without_a_scheduler_names_it() -> None:
    assert explained(facts(pod(spec={"schedulerName": "mine"}))) == (
        "NotScheduled",
        "Pod shop/web is pending: the scheduler mine has not handled it yet: check that it runs.",
    )


def test_gated_pod_names_its_gates() -> None:
    gated = pod(spec={"schedulingGates": [{"name": "example.test/quota"}]})
    assert explained(facts(gated)) == (
        "SchedulingGated",
        "Pod shop/web is pending: it waits until its scheduling gates are removed: example.test/quota.",
    )


def test_pod_without_a_class_is_not_ours() -> None:
    message = "0/1 nodes are available"
    plain = pod(
        spec={"runtimeClassName": None},
        conditions=(condition("PodScheduled", "False", "Unschedulable", message),),
    )
    assert explained(facts(plain, runtime_class={}, offered=True)) == (
        "Unschedulable",
        "Pod shop/web is pending: the scheduler finds no node for it: 0/1 nodes are available. It has no"
        " RuntimeClass, so it uses the default runtime of its node.",
    )


def test_hidden_kinds_are_named() -> None:
    hidden = {"runtime_class": None, "runtimes": None, "instances": None, "offered": None}
    found = facts(pod(), **hidden, hidden=("NodeRuntime", "RuntimeClass"))
    assert explained(found) == (
        "NotScheduled",
        "Pod shop/web is pending: the scheduler default-scheduler has not handled it yet: check that it"
        " runs. Your permissions do not allow reading NodeRuntime, RuntimeClass.",
    )
