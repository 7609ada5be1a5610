"""Plan which nodes change next. Pure: a Plan is computed from a NodeRuntime and a ClusterState.

A node goes through these steps; each is derived from the cluster's state, none is stored:

    selected ──► instance Installed ──► claim label set ──► handler labels set as handlers are proven
                                                                  │ no longer selected
    free ◄── instance deleted ◄── claim label removed ◄── instance Removed ◄── handler labels removed
                                  (agent reports Removed)  (no pods use it)     (no pods use it)

Pods are checked twice, before and after the handler labels are removed, so that a pod which was
scheduled in between is found. A change of ``kubelet.mode`` has the same two checks: pods must not live
in one runtime while the kubelet is connected to another.

Which revision the nodes get is decided in ``revisions``, which of them change now in ``waves``.
"""

from noderuntime_operator.rollout.agents import agents_to_search
from noderuntime_operator.rollout.planning import nodes_to_search, owners_in_question, plan
from noderuntime_operator.rollout.plans import Plan

__all__ = ["Plan", "agents_to_search", "nodes_to_search", "owners_in_question", "plan"]
