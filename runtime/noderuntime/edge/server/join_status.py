"""The upstream's StatusResponse and ours, joined to the node's.

The upstream's is kept as it came, with all conditions, features and fields that this version does not know;
ours is joined into it.
"""

from __future__ import annotations

from noderuntime.cri.v1 import api_pb2


def join(ours: api_pb2.StatusResponse, theirs: api_pb2.StatusResponse) -> api_pb2.StatusResponse:
    """Return the status of the node. A condition or feature of both sides is true if it is true on both.

    Our handlers take precedence over the upstream's of the same name.
    """
    node = api_pb2.StatusResponse()
    node.CopyFrom(theirs)
    for condition in ours.status.conditions:
        _join_condition(node.status, condition)
    names = {handler.name for handler in ours.runtime_handlers}
    upstream = [handler for handler in theirs.runtime_handlers if handler.name not in names]
    del node.runtime_handlers[:]
    node.runtime_handlers.extend([*ours.runtime_handlers, *upstream])
    for name in ("supplemental_groups_policy", "user_namespaces_host_network"):
        both = getattr(ours.features, name) and getattr(theirs.features, name)
        setattr(node.features, name, both)
    for key, text in ours.info.items():
        node.info[key] = text
    return node


def _join_condition(status: api_pb2.RuntimeStatus, ours: api_pb2.RuntimeCondition) -> None:
    """Join one of our conditions. Reasons and messages are those of the side or sides that are not ready."""
    known = next((condition for condition in status.conditions if condition.type == ours.type), None)
    if known is None:
        status.conditions.append(ours)
    elif not ours.status:
        ready, known.status = known.status, False
        known.reason = ours.reason if ready else known.reason
        known.message = ours.message if ready else f"{known.message}; noderuntime: {ours.message}"
