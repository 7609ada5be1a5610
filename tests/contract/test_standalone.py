"""A standalone daemon: its own images from a real registry, and pods that run them."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pty
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from realnode.daemon import Alone, Daemon
from realnode.image import busybox_layer, write_image
from realnode.pods import Kubelet, wait_until
from realnode.tools import tool
from realnode.traces import remove_cgroups, traces
from registries.content import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Content,
    described,
    digest,
)
from registries.real import RealRegistry

from noderuntime.cri.v1 import api_pb2

REPOSITORY = "team/app"
USER, SECRET = "puller", "let-me-in"
HTPASSWD = f"{USER}:$2b$04$7F8dIcrCzR94bQfsXGb4yuFR5Y3aRJUZAf1VvAxdctJUlvkIWupJG\n"
_FORMATS = {
    "oci": (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER),
    "docker": (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER),
}


@dataclass
class Site:
    """A daemon, its registries, and their content."""

    area: Path
    daemon: Daemon
    registry: RealRegistry
    content: Content

    def name(self, tag: str = "oci") -> str:
        return f"{self.registry.authority}/{REPOSITORY}:{tag}"

    def digest(self, tag: str) -> str:
        """Return the digest name of a tag."""
        return f"{self.registry.authority}/{REPOSITORY}@{self.content.tags[tag]}"


def _push_busybox(content: Content, tag: str) -> None:
    kind, config_type, layer_type = _FORMATS[tag]
    tar = busybox_layer(tool("busybox").read_bytes())
    layer = content.keep(gzip.compress(tar, mtime=0), layer_type)
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Cmd": ["sh"],
            "Env": ["PATH=/bin", f"MADE_AS={tag}"],
            "User": "33:44",
            "StopSignal": "SIGFOO",
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(tar)]},
    }
    config = content.keep(json.dumps(document).encode(), config_type)
    content.manifest(kind, {"config": described(config), "layers": [described(layer)]}, tag)


@pytest.fixture(scope="module")
def site(cni_conf: Path) -> Iterator[Site]:
    area = Path(tempfile.mkdtemp(prefix="noderuntime-alone-"))
    area.chmod(0o711)
    content = Content()
    for tag in _FORMATS:
        _push_busybox(content, tag)
    content.tags["same"] = content.tags["oci"]
    registry = RealRegistry(area, area / "storage", "registry")
    registry.push(REPOSITORY, content)
    daemon = Daemon(
        Path(tempfile.mkdtemp(prefix="nral-", dir="/run")), area / "daemon", Alone(cni_conf, area / "certs.d")
    )
    try:
        daemon.start()
        yield Site(area, daemon, registry, content)
    finally:
        daemon.remove()
        registry.stop()
        shutil.rmtree(area)


@pytest.fixture
def kubelet(site: Site, tmp_path: Path) -> Iterator[Kubelet]:
    """Yield a kubelet, and check that its pods and images are gone when the test ends."""
    parent = f"/noderuntime-alone-{uuid.uuid4().hex[:8]}"
    client = Kubelet(site.daemon.socket, tmp_path, parent)
    yield client
    for pod in client.pods():
        client.stop_and_remove(pod)
    for image in _images(client):
        _remove(client, image.id)
    client.channel.close()
    left = traces(site.daemon.run, parent, daemon=site.daemon.pid)
    remove_cgroups(parent)
    assert left == []
    layers = site.area / "daemon" / "state" / "images"
    wait_until(lambda: not any((layers / "layers").iterdir()), "removed images leave no layer")


def _spec(name: str) -> api_pb2.ImageSpec:
    return api_pb2.ImageSpec(image=name)


def _pull(kubelet: Kubelet, name: str, auth: api_pb2.AuthConfig | None = None) -> str:
    request = api_pb2.PullImageRequest(image=_spec(name), auth=auth)
    return kubelet.images.PullImage(request, timeout=60).image_ref


def _status(kubelet: Kubelet, name: str, *, verbose: bool = False) -> api_pb2.ImageStatusResponse:
    request = api_pb2.ImageStatusRequest(image=_spec(name), verbose=verbose)
    return kubelet.images.ImageStatus(request, timeout=20)


def _images(kubelet: Kubelet, wanted: str = "") -> list[api_pb2.Image]:
    request = api_pb2.ListImagesRequest(filter=api_pb2.ImageFilter(image=_spec(wanted)))
    return list(kubelet.images.ListImages(request, timeout=20).images)


def _remove(kubelet: Kubelet, name: str) -> None:
    kubelet.images.RemoveImage(api_pb2.RemoveImageRequest(image=_spec(name)), timeout=60)


def test_a_pulled_image_is_listed_described_and_removed(site: Site, kubelet: Kubelet) -> None:
    assert not _status(kubelet, site.name()).HasField("image")
    pulled = _pull(kubelet, site.name())
    assert _pull(kubelet, site.name("same")) == pulled, "one image, two tags"
    by_digest = site.digest("oci")
    [image] = _images(kubelet)
    assert image.id == pulled
    assert sorted(image.repo_tags) == sorted([site.name(), site.name("same")])
    assert list(image.repo_digests) == [by_digest]
    assert (image.uid.value, image.username) == (33, "")
    for name in (site.name(), by_digest, pulled, pulled.removeprefix("sha256:")[:12]):
        assert _status(kubelet, name).image.id == pulled
    output = json.loads(_status(kubelet, pulled, verbose=True).info["info"])
    assert "MADE_AS=oci" in output["imageSpec"]["config"]["Env"]
    assert [one.id for one in _images(kubelet, site.name("same"))] == [pulled]
    assert _images(kubelet, "example.test/other:1") == []
    _remove(kubelet, site.name("same"))
    assert _images(kubelet) == []
    _remove(kubelet, site.name("same"))


@pytest.mark.parametrize("tag", _FORMATS)
@pytest.mark.parametrize("handler", ["runc", "gvisor"])
def test_pods_run_pulled_images(site: Site, kubelet: Kubelet, handler: str, tag: str) -> None:
    pulled = _pull(kubelet, site.name(tag))
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    script = "echo $MADE_AS $(id -u):$(id -g) > /tmp/output; cat /tmp/output; exit 7"
    container = kubelet.run_container(pod, config, "c", script, image=_spec(pulled))
    wait_until(lambda: kubelet.status(container).state == api_pb2.CONTAINER_EXITED, "its end")
    status = kubelet.status(container)
    assert (status.exit_code, status.image_ref, status.image_id) == (7, site.digest(tag), pulled)
    [listed] = kubelet.runtime.ListContainers(api_pb2.ListContainersRequest(), timeout=20).containers
    assert (listed.image_ref, listed.image_id) == (site.digest(tag), pulled)
    assert status.image.image == site.name(tag)
    assert kubelet.log(config, "c") == [f"{tag} 33:44"]


def test_a_container_keeps_a_removed_images_layers(site: Site, kubelet: Kubelet) -> None:
    pulled = _pull(kubelet, site.name())
    config = kubelet.pod_config()
    container = kubelet.run_container(
        kubelet.run(config, "runc"), config, "c", "sleep 1000", image=_spec(pulled)
    )
    _remove(kubelet, pulled)
    assert _images(kubelet) == []
    assert kubelet.exec(container, "cat /etc/group").stdout.startswith(b"root:")


def _image_volume(name: str, sub_path: str = "") -> api_pb2.Mount:
    return api_pb2.Mount(container_path="/data", image=_spec(name), image_sub_path=sub_path, readonly=True)


@pytest.mark.parametrize("handler", ["runc", "gvisor"])
def test_images_are_mounted_as_volumes(site: Site, kubelet: Kubelet, handler: str) -> None:
    pulled = _pull(kubelet, site.name())
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    whole = kubelet.run_container(
        pod, config, "whole", "sleep 1000", image=_spec(pulled), mounts=[_image_volume(site.name())]
    )
    part = kubelet.run_container(
        pod, config, "part", "sleep 1000", image=_spec(pulled), mounts=[_image_volume(pulled, "etc")]
    )
    assert kubelet.exec(whole, "cat /data/etc/group").stdout.startswith(b"root:")
    assert kubelet.exec(part, "cat /data/group").stdout.startswith(b"root:")
    assert kubelet.exec(whole, "echo x > /data/etc/group").exit_code != 0
    assert kubelet.exec(whole, "/data/bin/true").exit_code == 0
    reported = [kubelet.status(one).mounts[0].image for one in (whole, part)]
    assert [(one.image, one.image_ref) for one in reported] == [(pulled, pulled)] * 2
    _remove(kubelet, pulled)
    assert kubelet.exec(part, "cat /data/passwd").stdout.startswith(b"root:")


@pytest.mark.parametrize(
    ("sub_path", "code"),
    [
        ("none", grpc.StatusCode.NOT_FOUND),
        ("/etc", grpc.StatusCode.INVALID_ARGUMENT),
        ("etc/..", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_bad_path_in_an_image_volume_is_refused(
    site: Site, kubelet: Kubelet, sub_path: str, code: grpc.StatusCode
) -> None:
    pulled = _pull(kubelet, site.name())
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    volume = _image_volume(pulled, sub_path)
    with pytest.raises(grpc.RpcError) as refused:
        kubelet.create(pod, config, "c", "true", image=_spec(pulled), mounts=[volume])
    assert refused.value.code() is code
    assert kubelet.containers() == set()


def test_unknown_stop_signal_of_an_image_is_sigterm(site: Site, kubelet: Kubelet) -> None:
    pulled = _pull(kubelet, site.name())
    config = kubelet.pod_config()
    script = "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done"
    container = kubelet.run_container(kubelet.run(config, "runc"), config, "c", script, image=_spec(pulled))
    wait_until(lambda: kubelet.log(config, "c") == ["up"], "the trap")
    assert kubelet.status(container).stop_signal == api_pb2.SIGTERM
    kubelet.runtime.StopContainer(
        api_pb2.StopContainerRequest(container_id=container, timeout=20), timeout=30
    )
    assert kubelet.status(container).exit_code == 9


def test_image_fs_info_reports_the_store(site: Site, kubelet: Kubelet) -> None:
    _pull(kubelet, site.name())

    def used() -> int:
        reported = kubelet.images.ImageFsInfo(api_pb2.ImageFsInfoRequest(), timeout=20)
        [images], [containers] = reported.image_filesystems, reported.container_filesystems
        assert images.fs_id == containers.fs_id
        assert images.fs_id.mountpoint == str(site.area / "daemon/state/images")
        return images.used_bytes.value

    wait_until(lambda: used() > 500_000, "the image counts")
    assert _status(kubelet, site.name()).image.size > 500_000


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("{registry}/team/app:none", grpc.StatusCode.NOT_FOUND, "not found"),
        ("127.0.0.1:1/team/app:1", grpc.StatusCode.UNAVAILABLE, "127.0.0.1:1"),
        ("{registry}/Team/App", grpc.StatusCode.INVALID_ARGUMENT, "is invalid"),
        ("{registry}/../etc:1", grpc.StatusCode.INVALID_ARGUMENT, "is invalid"),
    ],
)
def test_a_failed_pull_is_one_line(
    site: Site, kubelet: Kubelet, name: str, code: grpc.StatusCode, words: str
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        _pull(kubelet, name.format(registry=site.registry.authority))
    assert (refused.value.code(), "\n" in refused.value.details()) == (code, False)
    assert words in refused.value.details()
    assert _images(kubelet) == []


def test_pull_secrets(site: Site, kubelet: Kubelet) -> None:
    (site.area / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "test", "path": str(site.area / "htpasswd")}}
    closed = RealRegistry(site.area, site.area / "storage", "closed", auth=auth)
    try:
        name = f"{closed.authority}/{REPOSITORY}:oci"
        with pytest.raises(grpc.RpcError) as refused:
            _pull(kubelet, name)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.RpcError) as refused:
            _pull(kubelet, name, api_pb2.AuthConfig(username=USER, password="wrong-secret"))
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "wrong-secret" not in refused.value.details() + site.daemon.log.read_text()
        assert _pull(kubelet, name, api_pb2.AuthConfig(username=USER, password=SECRET))
        assert SECRET not in site.daemon.log.read_text()
    finally:
        closed.stop()


def test_a_reload_changes_registries_and_pinned_images(site: Site, kubelet: Kubelet, tmp_path: Path) -> None:
    elsewhere, name = tmp_path / "certs.d/_default", f"moved.example/{REPOSITORY}:oci"
    with pytest.raises(grpc.RpcError):
        _pull(kubelet, name)
    elsewhere.mkdir(parents=True)
    (elsewhere / "hosts.toml").write_text(f'[host."http://{site.registry.authority}"]\n')
    drop_in = site.daemon.config.parent / "conf.d/50-images.toml"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text(f"[images]\npinned = ['{name}']\ncerts_dirs = ['{elsewhere.parent}']\n")
    try:
        _reload(site)
        _pull(kubelet, name)
        assert _status(kubelet, name).image.pinned
    finally:
        drop_in.unlink()
        _reload(site)
    assert not _status(kubelet, name).image.pinned


def test_status_names_a_handler_that_hangs(site: Site, kubelet: Kubelet, tmp_path: Path) -> None:
    program, began = tmp_path / "hangs", tmp_path / "began"
    program.write_text(f"#!/bin/sh\necho $$ >> {began}\nexec sleep 1000\n")
    program.chmod(0o755)
    drop_in = site.daemon.config.parent / "conf.d/60-hangs.toml"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text(f"[handlers.hangs]\ntype = 'oci'\npath = '{program}'\n")
    try:
        _reload(site)
        asked = time.monotonic()
        status = kubelet.node_status()
        assert time.monotonic() - asked < 4, "the deadline of a probe is 3 s"
        asked = time.monotonic()
        status = kubelet.node_status()
        assert time.monotonic() - asked < 1, "the last known answer"
    finally:
        drop_in.unlink()
        _reload(site)
    conditions = {one.type: one for one in status.status.conditions}
    assert conditions["RuntimeReady"].status
    assert not conditions["HandlersReady"].status
    assert conditions["HandlersReady"].message == "hangs: handler hangs did not answer within 3 s"
    runc = next(one for one in status.runtime_handlers if one.name == "runc")
    assert runc.features.recursive_read_only_mounts
    pids = [int(pid) for pid in began.read_text().split()]
    assert len(pids) == 1
    wait_until(lambda: not Path(f"/proc/{pids[0]}").exists(), "the program that hung is killed")
    assert all(one.status for one in kubelet.node_status().status.conditions)


def _reload(site: Site) -> None:
    written = len(site.daemon.log.read_text())
    site.daemon.reload()
    wait_until(lambda: "configuration reloaded" in site.daemon.log.read_text()[written:], "the reload")


def test_images_and_pods_survive_a_restart(site: Site, kubelet: Kubelet) -> None:
    pulled = _pull(kubelet, site.name())
    config = kubelet.pod_config()
    container = kubelet.run_container(
        kubelet.run(config, "runc"), config, "c", "sleep 1000", image=_spec(pulled)
    )
    site.daemon.kill()
    site.daemon.start()
    assert [image.id for image in _images(kubelet)] == [pulled]
    assert kubelet.exec(container, "echo there").stdout == b"there\n"
    again = kubelet.create(next(iter(kubelet.pods())), config, "second", "true", image=_spec(site.name()))
    kubelet.start(again)
    wait_until(lambda: kubelet.status(again).state == api_pb2.CONTAINER_EXITED, "its end")
    assert kubelet.status(again).exit_code == 0


def test_a_second_daemon_on_the_store_exits_with_an_error(site: Site, tmp_path: Path) -> None:
    config = (site.area / "daemon" / "config.toml").read_text()
    config = config.replace(str(site.daemon.socket), str(tmp_path / "other.sock"))
    (tmp_path / "config.toml").write_text(config)
    done = subprocess.run(
        [sys.executable, "-m", "noderuntime", "serve", "--config", tmp_path / "config.toml"],
        capture_output=True, text=True, timeout=30, check=False, env=os.environ | {"JOURNAL_STREAM": ""},
    )  # fmt: skip
    assert done.returncode == 1
    assert str(site.area / "daemon/state") in done.stderr.splitlines()[-1]


def _noderuntime(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "noderuntime", *words, "--socket", str(site.daemon.socket)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_cli_pull_shows_a_bar_for_each_layer(site: Site, kubelet: Kubelet) -> None:
    words = ["-m", "noderuntime", "images", "pull", site.name(), "--socket", str(site.daemon.socket)]
    leader, follower = pty.openpty()
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=follower) as pull:
        os.close(follower)
        printed, _ = pull.communicate(timeout=60)
    with contextlib.suppress(OSError):  # EIO: nobody holds the other end any more
        seen = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert "#" * 30 in seen
    assert "done" in seen
    assert [image.id for image in _images(kubelet)] == [printed.decode().strip()]


def test_cli_pull_fails_with_one_line(site: Site, kubelet: Kubelet) -> None:
    done = _noderuntime(site, "images", "pull", site.name("none"))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "not found" in done.stderr


def test_cli_loads_an_archive(site: Site, kubelet: Kubelet, tmp_path: Path) -> None:
    write_image(tmp_path / "app.tar", "loaded.test/app:1", tool("busybox"), ["sh"])
    done = _noderuntime(site, "images", "load", str(tmp_path / "app.tar"))
    [image] = _images(kubelet, "loaded.test/app:1")
    assert (done.returncode, done.stdout.split()) == (0, [image.id])
    (tmp_path / "bad.tar").write_bytes(b"no archive")
    done = _noderuntime(site, "images", "load", str(tmp_path / "bad.tar"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def _docker_save(target: Path, name: str) -> None:
    """Write an archive of ``docker save``: a config, uncompressed layers, and a manifest list."""
    tar = busybox_layer(tool("busybox").read_bytes())
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin", "MADE_AS=saved"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(tar)]},
    }
    listed = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer/layer.tar"]}]
    members = {"config.json": json.dumps(config), "manifest.json": json.dumps(listed)}
    with tarfile.open(target, "w") as archive:
        for path, content in {**members, "layer/layer.tar": tar}.items():
            raw = content if isinstance(content, bytes) else content.encode()
            entry = tarfile.TarInfo(path)
            entry.size = len(raw)
            archive.addfile(entry, io.BytesIO(raw))


@pytest.mark.parametrize("handler", ["runc", "gvisor"])
def test_an_image_of_docker_save_runs(site: Site, kubelet: Kubelet, tmp_path: Path, handler: str) -> None:
    _docker_save(tmp_path / "saved.tar", "saved.test/app:1")
    assert _noderuntime(site, "images", "load", str(tmp_path / "saved.tar")).returncode == 0
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    container = kubelet.run_container(pod, config, "c", "echo $MADE_AS", image=_spec("saved.test/app:1"))
    wait_until(lambda: kubelet.status(container).state == api_pb2.CONTAINER_EXITED, "its end")
    status = kubelet.status(container)
    assert (status.exit_code, kubelet.log(config, "c")) == (0, ["saved"])
    assert status.image_ref == status.image_id, "an archive has no digest of a registry"


def test_crictl_pulls_lists_and_removes_images(site: Site, kubelet: Kubelet) -> None:
    def crictl(*words: str) -> str:
        argv = [tool("crictl"), "--runtime-endpoint", f"unix://{site.daemon.socket}", *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout

    assert "Image is up to date" in crictl("pull", site.name())
    listed = crictl("images")
    assert REPOSITORY in listed
    assert json.loads(crictl("inspecti", site.name()))["info"]["imageSpec"]["config"]["User"] == "33:44"
    assert site.name() in crictl("rmi", site.name())
    assert REPOSITORY not in crictl("images")
    assert "imageFilesystems" in crictl("imagefsinfo")
