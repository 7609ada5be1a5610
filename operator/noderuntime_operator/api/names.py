"""The names of the API group: labels, annotations, the finalizer and the owner of fields."""

from __future__ import annotations

GROUP = "noderuntime.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

OWNER_LABEL = f"{GROUP}/runtime"
"""On a node: the NodeRuntime that claimed it. On an object: the NodeRuntime that it belongs to."""

HANDLER_LABEL_PREFIX = f"handler.{GROUP}/"
"""On a node, ``handler.noderuntime.dev/<name>=true``: a canary sandbox of this handler started there."""

REMOVING_LABEL = f"{GROUP}/removing"
"""On a RuntimeClass: it is being removed. An admission policy of the chart rejects new pods of the class."""

RESTORED_ANNOTATION = f"{GROUP}/restored"
"""On an instance that replaces a lost one: only the agent's report proves that its node was cleaned up."""

SKIP_LABEL = f"{GROUP}/skip"
"""On a node, with any value: rollouts do not change the node until the label is removed."""

ORPHANED_LABEL = f"{GROUP}/orphaned"
"""On a node that was unreachable until its NodeRuntime was deleted: noderuntime is still installed there."""

REVISION_LABEL = f"{GROUP}/revision"
"""On a ControllerRevision of the operator: the digest of the revision. Those of DaemonSets do not have it."""

SERVICE_ACCOUNT_LABEL = f"{GROUP}/service-account"
"""On an agent's pod: the uid of its ServiceAccount. The token of an account that was created again is new."""

RETRY_ANNOTATION = f"{GROUP}/retry"
"""On a NodeRuntime or an instance: a change of its value makes a failed version be tried again."""

ROLLBACK_ANNOTATION = f"{GROUP}/rollback-to"
"""On a NodeRuntime: the revision that all nodes get until the annotation is removed."""

TAKEN_ANNOTATION = f"{GROUP}/taken"
"""On an instance: the time of the operator's last change of its spec."""

BEFORE_ANNOTATION = f"{GROUP}/failed-before"
"""On an instance: its node had failed before the last change of its spec, so that is not the cause."""

FINALIZER = f"{GROUP}/finalizer"

FIELD_MANAGER = "noderuntime-operator"
"""The owner of the fields that the operator writes."""
