"""Containers, one verb per file; each answers one CRI call.

create.create_container(parts, sandbox_id, config) -> container ID
start.start_container(parts, container_id)
stop.stop_container(parts, container_id, timeout)
remove.remove_container(parts, container_id)
status.container_status(parts, container_id, verbose=…) -> ContainerStatusResponse
list.list_containers(parts, filter) -> list[Container]
update.update_container_resources(parts, container_id, resources)
reopen_log.reopen_container_log(parts, container_id)
exec_sync.exec_sync(parts, container_id, command, timeout) -> ExecSyncResponse
"""
