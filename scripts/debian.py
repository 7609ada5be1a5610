"""Install Debian packages, or unpack those that would start a daemon when they are installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aptsources

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Another process may hold the lock: wait for it.
_APT = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
_ENVIRONMENT = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def install(packages: Iterable[str]) -> None:
    """Install the missing ones of these packages."""
    missing = [package for package in packages if not is_installed(package)]
    if not missing:
        return
    print(f"setup: Debian packages {' '.join(missing)}", flush=True)
    apt("update")
    apt("install", "--yes", "--no-install-recommends", *missing)


def is_installed(package: str) -> bool:
    """Return whether dpkg has the package as installed."""
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout == "installed"


def apt(*arguments: str, options: Iterable[str] = ()) -> None:
    """Run apt-get without output. Raises SystemExit with its last message when it fails."""
    argv = [*_APT, *(word for option in options for word in ("-o", option)), *arguments]
    done = subprocess.run(
        argv, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"apt-get {' '.join(arguments[:4])}: {(done.stderr or done.stdout).strip()[-1000:]}")


def link_programs(name: str, entry: dict[str, Any], cache: Path) -> None:
    """Link the programs of an entry of tools/programs.toml into cache/bin.

    They come from PATH if the entry allows it, otherwise from its packages, unpacked.
    """
    links = {cache / "bin" / Path(program).name: program for program in entry["programs"]}
    unpacked = cache / "debian" / name
    if all(link.exists() for link in links) and (entry.get("from_path") or unpacked.exists()):
        return
    places = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin"
    found = {link: shutil.which(link.name, path=places) for link in links} if entry.get("from_path") else {}
    if not all(found.values()) or not found:
        print(f"setup: {name} from Debian {entry['suite']}", flush=True)
        unpack(entry["packages"], unpacked, entry["suite"])
        found = {link: str(unpacked / program) for link, program in links.items()}
    (cache / "bin").mkdir(parents=True, exist_ok=True)
    for link, program in found.items():
        link.unlink(missing_ok=True)
        link.symlink_to(str(program))


def unpack(packages: list[str], directory: Path, suite: str) -> None:
    """Download packages of a Debian suite, check Debian's signatures, and unpack them into a directory.

    Uses separate package lists, so that the machine's apt does not see the suite.
    """
    with tempfile.TemporaryDirectory() as scratch:
        lists, sources = Path(scratch, "lists"), Path(scratch, "sources.list")
        (lists / "partial").mkdir(parents=True)
        sources.write_text(f"deb [signed-by={_KEYRING}] {aptsources.mirror(suite)} {suite} main\n")
        options = (
            f"Dir::Etc::sourcelist={sources}", "Dir::Etc::sourceparts=/dev/null",
            f"Dir::State::lists={lists}", "Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache=",
            "APT::Sandbox::User=root", "Acquire::Languages=none",
        )  # fmt: skip
        apt("update", options=options)
        with contextlib.chdir(scratch):
            apt("download", *packages, options=options)
        partial = directory.with_name(f"{directory.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for archive in Path(scratch).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(archive), str(partial)], check=True)
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
