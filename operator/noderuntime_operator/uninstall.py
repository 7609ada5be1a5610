"""``noderuntime-operator check-uninstall``: the chart's hook before ``helm uninstall``.

Without an operator, nodes keep noderuntime and their agents, and NodeRuntimes cannot be deleted.
"""

from __future__ import annotations

from noderuntime_operator.kube import Kube, KubeError


async def refusal(kube: Kube) -> str:
    """Return why the release must not be uninstalled, or an empty string if no NodeRuntime exists."""
    try:
        names = [body["metadata"]["name"] async for body in kube.list("NodeRuntime")]
    except KubeError as error:
        if error.status != 404:
            raise
        return ""  # the CRD is not installed
    if not names:
        return ""
    return (
        f"NodeRuntimes exist: {', '.join(names)}. Only a running operator can restore their nodes.\n"
        "Delete them and wait until they are gone, then uninstall:\n"
        f"  kubectl delete noderuntimes {' '.join(names)}\n"
        "To uninstall now, and leave noderuntime on the nodes: helm uninstall --no-hooks"
    )
