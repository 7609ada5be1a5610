"""Which cluster and namespace the plugin uses, as kubectl would."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from kubectl_noderuntime.errors import Unreadable
from kubectl_noderuntime.kubeconfig import load


@pytest.fixture(autouse=True)
def outside_of_a_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)


def kubeconfig(path: Path, *names: str, current: str = "", namespace: str = "") -> Path:
    """Write a kubeconfig with a context, a cluster and a user of each name."""
    context = {"namespace": namespace} if namespace else {}
    path.parent.mkdir(exist_ok=True)
    content = {
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.example.test"}} for name in names],
        "users": [{"name": name, "user": {"token": name}} for name in names],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, **context}} for name in names],
    }
    path.write_text(yaml.safe_dump(content | ({"current-context": current} if current else {})))
    return path


async def host(file: str | None = None, context: str | None = None) -> str:
    return str((await load(file, context)).configuration.host)


async def test_option_wins_over_variable_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeconfig(tmp_path / ".kube/config", "home", current="home")
    assert await host() == "https://home.example.test"
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "variable", "variable", current="variable")))
    assert await host() == "https://variable.example.test"
    option = kubeconfig(tmp_path / "option", "option", current="option")
    assert await host(str(option)) == "https://option.example.test"


async def test_first_current_context_of_several_files_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = kubeconfig(tmp_path / "first", "first", current="first")
    second = kubeconfig(tmp_path / "second", "second", current="second")
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(["/missing", str(first), str(second)]))
    assert await host() == "https://first.example.test"
    assert await host(context="second") == "https://second.example.test"


async def test_namespace_is_that_of_the_context(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path / "file", "a", current="a", namespace="shop")
    assert (await load(str(file), None)).namespace == "shop"
    kubeconfig(file, "a", current="a")
    assert (await load(str(file), None)).namespace == "default"


async def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"^no kubeconfig at ~/\.kube/config \(set KUBECONFIG, or give"):
        await load(None, None)
    with pytest.raises(Unreadable, match=r"^no kubeconfig at /missing \(set KUBECONFIG, or give"):
        await load("/missing", None)


@pytest.mark.parametrize("content", ["", "[]", "a: [", "current-context: x", "\x00", "contexts: 1"])
async def test_broken_file_is_one_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "file"
    file.write_text(content)
    with pytest.raises(Unreadable, match="kubeconfig"):
        await load(str(file), None)


async def test_unknown_context_is_named(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path / "file", "a", current="a")
    with pytest.raises(Unreadable, match=r"name z in .*\(check --kubeconfig and --context\)$"):
        await load(str(file), "z")
