"""Build Go programs at pinned versions, or use those that this machine has."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import debian

_NEEDED = (1, 26)
_SWITCHES_ITSELF = (1, 21)  # since then Go downloads the toolchain that go.mod requires


def find_go(toolchain: dict[str, Any], cache: Path) -> str:
    """Return a Go command that is new enough: from PATH, from the cache, or from Debian sid, unpacked."""
    unpacked = cache / "debian" / "go"
    own = unpacked / "usr/lib/go-1.26/bin/go"
    path = f"{os.environ.get('PATH', '')}:/usr/local/go/bin"
    for candidate in (shutil.which("go", path=path), str(own)):
        if candidate and os.path.exists(candidate) and _go_version(candidate) >= _SWITCHES_ITSELF:
            return candidate
    print(f"setup: Go from Debian {toolchain['suite']}", flush=True)
    debian.unpack(toolchain["packages"], unpacked, toolchain["suite"])
    version = _go_version(str(own))
    if version < _NEEDED:
        raise SystemExit(f"Go {'.'.join(map(str, _NEEDED))} or newer is needed, but Debian sid has {version}")
    return str(own)


def build(go: str, folder: Path, entry: dict[str, Any], target: Path) -> None:
    """Build the module's programs into target, unless they were built from the same pins."""
    target.mkdir(parents=True, exist_ok=True)
    stamp, key = target / f".{folder.name}.pins", _key(folder, entry)
    present = all((target / name).exists() for name in entry["programs"])
    if present and stamp.exists() and stamp.read_text() == key:
        return
    version = _pinned_version(folder, entry["module"])
    missing = [name for name in entry["programs"] if not _link_from_path(name, version, entry, target)]
    if missing:
        print(f"setup: building {' '.join(missing)} {version}", flush=True)
        environment = _c_environment(entry.get("cgo"), target.parent / "debian" / f"{folder.name}-libraries")
        began = time.monotonic()
        for command in _commands(go, folder, entry, version, missing, target=target):
            _compile(command, folder, environment)
        print(f"setup: built {' '.join(missing)} in {time.monotonic() - began:.0f} s", flush=True)
    stamp.write_text(key)


def _commands(
    go: str, folder: Path, entry: dict[str, Any], version: str, names: list[str], *, target: Path
) -> list[list[str]]:
    """Return the Go commands: one for all ordinary programs, and one for each test package."""
    major, minor = version.split(".")[:2]
    ldflags = entry["ldflags"].format(version=version, major=major, minor=minor)
    flags = ["-trimpath", f"-tags={entry.get('tags', '')}", f"-ldflags={ldflags}"]
    for name in names:
        (target / name).unlink(missing_ok=True)
    tests: dict[str, str] = entry.get("tests", {})
    packages = _packages(folder, [name for name in names if name not in tests])
    return [
        [go, "build", *flags, "-o", f"{target}/", *packages],
        *(
            [go, "test", "-c", *flags, "-o", str(target / name), tests[name]]
            for name in names
            if name in tests
        ),
    ]


def _c_environment(libraries: dict[str, Any] | None, unpacked: Path) -> dict[str, str]:
    """Return Go's variables for C: the entry's libraries from Debian, unpacked, or no C without an entry."""
    if libraries is None:
        return {"CGO_ENABLED": "0"}
    debian.unpack(libraries["packages"], unpacked, libraries["suite"])
    (pkgconfig,) = (unpacked / "usr/lib").glob("*/pkgconfig")
    return {
        "CGO_ENABLED": "1",
        "CGO_CFLAGS": f"-I{unpacked / 'usr/include'}",
        "CGO_LDFLAGS": f"-L{pkgconfig.parent}",
        "PKG_CONFIG_PATH": str(pkgconfig),
    }


def _compile(argv: list[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        argv,
        cwd=folder,
        env={"GOTOOLCHAIN": "auto", **os.environ, **environment, "GOFLAGS": "-mod=readonly"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv[:3])} in {folder}: {done.stderr.strip()[-2000:]}")


def _packages(folder: Path, names: list[str]) -> list[str]:
    """Return the packages of the programs, from the tool lines of go.mod."""
    tools = re.findall(r"^(?:tool)?\s+(\S+/\S+)$", (folder / "go.mod").read_text(), re.MULTILINE)
    return [next(tool for tool in tools if tool.rsplit("/", 1)[1] == name) for name in names]


def _pinned_version(folder: Path, module: str) -> str:
    """Return the version that go.mod requires, without the leading v."""
    found = re.search(
        rf"^(?:require)?\s+{re.escape(module)} v(\S+)", (folder / "go.mod").read_text(), re.MULTILINE
    )
    if found is None:
        raise SystemExit(f"{folder / 'go.mod'} does not require {module}")
    return found.group(1)


def _link_from_path(name: str, version: str, entry: dict[str, Any], target: Path) -> bool:
    """Link a program from $KUBE_BIN or PATH if the entry allows it and the version is the pinned one."""
    query: list[str] = entry.get("from_path", [])
    places = f"{os.environ.get('KUBE_BIN', '')}:{os.environ.get('PATH', '')}"
    found = shutil.which(name, path=places) if query else None
    if found is None or Path(found).resolve().is_relative_to(target.resolve()):
        return False
    argv = [found, *(["version", "--client"] if name == "kubectl" else query)]
    output = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    ).stdout
    if not re.search(rf"\bv{re.escape(version)}(?![\w.-])", output):
        return False
    (target / name).unlink(missing_ok=True)
    (target / name).symlink_to(Path(found).resolve())
    return True


def _key(folder: Path, entry: dict[str, Any]) -> str:
    pins = (folder / "go.mod").read_bytes() + (folder / "go.sum").read_bytes() + repr(entry).encode()
    return hashlib.sha256(pins).hexdigest()


def _go_version(go: str) -> tuple[int, ...]:
    """Return major and minor version of the command itself, not of the toolchain that it would download."""
    environment = os.environ | {"GOTOOLCHAIN": "local"}
    output = subprocess.run(
        [go, "env", "GOVERSION"], capture_output=True, text=True, env=environment, check=False
    ).stdout
    return tuple(int(part) for part in re.findall(r"\d+", output)[:2])
