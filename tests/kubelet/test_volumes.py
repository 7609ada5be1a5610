"""Volumes of every kind that needs no driver, and the environment of a container."""

from __future__ import annotations

import base64
import json

import pytest
from kubelet.kit.pods import (
    CLASSES,
    SLEEP,
    config_map,
    container,
    named,
    once,
    pod,
    secret,
    spec,
    stateful_set,
)
from kubelet.kit.workloads import Workloads
from kubelet.kit.world import World

from harness.kubectl import Manifest
from harness.run import wait_for

_TELL = """
for file in /config/greeting /secret/password /info/labels /info/memory /one/renamed; do
  echo "$file: $(cat $file)"
done
echo "token: $(cat /token/token)"
stat -c '%n: %a %u:%g' /secret/..data/password /token/..data/token
df -k /memory | tail -n 1 | awk '{print "size of memory: " $2}'
echo >> /host/starts; echo "starts: $(wc -l < /host/starts)"
ls -A /scratch | sed 's,^,scratch: ,'; touch /scratch/used
touch /config/new 2>/dev/null || echo "config: read-only"
exec sleep 1000
"""
_MEMORY = {"containerName": "main", "resource": "limits.memory", "divisor": "1Mi"}
_SOURCES: dict[str, Manifest] = {
    "config": {"configMap": {"name": "settings"}},
    "secret": {"secret": {"secretName": "keys", "defaultMode": 0o440}},
    "scratch": {"emptyDir": {}},
    "memory": {"emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
    "info": {
        "downwardAPI": {
            "items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "memory", "resourceFieldRef": _MEMORY},
            ]
        }
    },
    "token": {
        "projected": {
            "sources": [
                {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            ]
        }
    },
    "host": {"hostPath": {"path": "/var/lib/kubelet/data", "type": "DirectoryOrCreate"}},
}


def _stateful(runtime: str | None) -> Manifest:
    mounts: list[Manifest] = [{"name": name, "mountPath": f"/{name}"} for name in _SOURCES if name != "host"]
    mounts += [
        {"name": "config", "mountPath": "/one/renamed", "subPath": "greeting", "readOnly": True},
        {"name": "host", "mountPath": "/host", "subPathExpr": "$(POD)"},
    ]
    name = [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    limits = {"limits": {"memory": "128Mi"}}
    main = container("main", _TELL, env=name, volumeMounts=mounts, resources=limits)
    volumes = [{"name": name, **source} for name, source in _SOURCES.items()]
    return spec(main, runtime=runtime, volumes=volumes, securityContext={"runAsUser": 0, "fsGroup": 2000})


@pytest.mark.parametrize("runtime", CLASSES)
def test_stateful_set_pods_have_their_volumes(workloads: Workloads, runtime: str | None) -> None:
    name = named("db", runtime)
    workloads.apply(config_map("settings", greeting="hello"), secret("keys", password="open sesame"))
    workloads.apply(stateful_set(name, 2, _stateful(runtime)))
    workloads.kubectl("rollout", "status", f"statefulset/{name}", "--timeout=90s")
    for number in range(2):
        log = workloads.logged(f"{name}-{number}", "config: read-only")
        reported = dict(line.split(": ", 1) for line in log.splitlines() if ": " in line)
        assert reported["/config/greeting"] == reported["/one/renamed"] == "hello"
        assert reported["/secret/password"] == "open sesame"
        assert f'app="{name}"' in reported["/info/labels"]
        assert reported["/info/memory"] == "128"
        assert reported["/secret/..data/password"] == "440 0:2000"
        assert reported["size of memory"] == "8192"
        assert reported["starts"] == "1"
        assert "scratch" not in reported
        assert _claims(reported["token"])["aud"] == ["vault"]
    workloads.delete(f"pod/{name}-1")
    workloads.kubectl.wait_pod_ready(f"{name}-1")
    again = workloads.logged(f"{name}-1", "config: read-only")
    assert "starts: 2\n" in again
    assert "scratch: used" not in again
    assert "starts: 1\n" in workloads.log(f"{name}-0")


def _claims(token: str) -> Manifest:
    body = token.split(".")[1]
    claims: Manifest = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims


@pytest.mark.parametrize("runtime", CLASSES)
def test_containers_of_a_pod_share_its_volumes(workloads: Workloads, runtime: str | None) -> None:
    name = named("shares", runtime)
    mounts = {"volumeMounts": [{"name": "both", "mountPath": "/both"}]}
    writer = container("writer", f"echo written > /both/file; {SLEEP}", **mounts)
    reader = container("reader", f"until cat /both/file 2>/dev/null; do sleep 0.1; done; {SLEEP}", **mounts)
    workloads.ready(pod(name, reader, writer, runtime=runtime, volumes=[{"name": "both", "emptyDir": {}}]))
    assert workloads.logged(name, "written", "-c", "reader") == "written\n"


@pytest.mark.parametrize("runtime", CLASSES)
def test_later_mount_of_the_node_propagates_only_if_requested(
    world: World, workloads: Workloads, runtime: str | None
) -> None:
    name = named("late", runtime)
    directory = f"/var/lib/kubelet/{name}"
    world.node.exec("mkdir", "-p", f"{directory}/mnt")
    mount = {"name": "host", "mountPath": "/host", "mountPropagation": "HostToContainer"}
    volumes = [{"name": "host", "hostPath": {"path": directory, "type": "Directory"}}]
    main = container("main", SLEEP, volumeMounts=[mount])
    workloads.ready(pod(name, main, runtime=runtime, volumes=volumes))
    world.node.exec("mount", "-t", "tmpfs", "late", f"{directory}/mnt")
    try:
        world.node.exec("touch", f"{directory}/mnt/there")
        wait_for("mount", lambda: "there" in workloads.run_in(name, "ls", "/host/mnt"), timeout=10)
    finally:
        world.node.exec("umount", "--lazy", f"{directory}/mnt")


def _ref(path: str) -> Manifest:
    return {"valueFrom": {"fieldRef": {"fieldPath": path}}}


@pytest.mark.parametrize("runtime", CLASSES)
def test_container_environment_has_pod_fields_and_limits(
    world: World, workloads: Workloads, runtime: str | None
) -> None:
    name = named("env", runtime)
    workloads.apply(config_map("env", GREETING="hello", OTHER="world"), secret("env", WORD="sesame"))
    env = [
        {"name": "POD", **_ref("metadata.name")},
        {"name": "UID", **_ref("metadata.uid")},
        {"name": "NODE", **_ref("spec.nodeName")},
        {"name": "IP", **_ref("status.podIP")},
        {"name": "HOST_IP", **_ref("status.hostIP")},
        {"name": "COLOUR", **_ref("metadata.annotations['colour']")},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "env", "key": "WORD"}}},
        {"name": "JOINED", "value": "$(GREETING) $(SECRET) $$(POD)"},
    ]
    sources = [{"configMapRef": {"name": "env"}}, {"secretRef": {"name": "env"}, "prefix": "S_"}]
    resources = {"requests": {"cpu": "150m"}}
    manifest = once(name, "env; hostname; hostname -i; cat /etc/hosts", runtime)
    manifest["metadata"]["annotations"] = {"colour": "green"}
    manifest["spec"]["containers"][0] |= {"env": env, "envFrom": sources, "resources": resources}
    manifest["spec"]["hostAliases"] = [{"ip": "192.0.2.7", "hostnames": ["far"]}]
    workloads.apply(manifest)
    workloads.ended(name)
    status = workloads.kubectl.get("pod", name)
    log = workloads.log(name)
    reported = dict(line.split("=", 1) for line in log.splitlines() if "=" in line)
    assert reported | {
        "POD": name, "UID": status["metadata"]["uid"], "NODE": world.node.name, "CPU": "150",
        "IP": status["status"]["podIP"], "HOST_IP": world.node.ip, "COLOUR": "green", "OTHER": "world",
        "SECRET": "sesame", "S_WORD": "sesame", "JOINED": "hello sesame $(POD)", "HOSTNAME": name,
    } == reported  # fmt: skip
    assert f"\n{name}\n{status['status']['podIP']}" in log
    assert "192.0.2.7\tfar" in log
