"""The resources of noderuntime.dev/v1alpha1: these models are the only source of the CRDs.

``NodeRuntime`` is what the user writes: which nodes, which handlers. ``NodeRuntimeInstance``
is one small object per node: the operator writes its spec, the node's agent reports in its
status. ``crdgen`` generates structural schemas from both; ``kubectl explain`` prints their
docstrings and descriptions.

Every string, list and map is bounded: the API server refuses CEL rules whose cost it cannot
bound, and an instance must stay small (there is one for each node of the cluster).
"""
