"""Pod sandboxes, one verb per file; each answers one CRI call.

run.run_pod_sandbox(parts, config, handler) -> sandbox ID
stop.stop_pod_sandbox(parts, sandbox_id)
remove.remove_pod_sandbox(parts, sandbox_id)
status.pod_sandbox_status(parts, sandbox_id, verbose=…) -> PodSandboxStatusResponse
list.list_pod_sandboxes(parts, filter) -> list[PodSandbox]
events.container_events(parts) -> async iterator of ContainerEventResponse
"""
