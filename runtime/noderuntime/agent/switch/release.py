"""Releases: a version of the bundle with the daemon's configuration and units.

The agent stages the release that it wants; the switch installs it. ``releases.json`` records what served.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from noderuntime.agent import layout as names
from noderuntime.agent.layout import Layout
from noderuntime.agent.switch import journal as records
from noderuntime.core import durable_files as files
from noderuntime.core import log
from noderuntime.core.errors import Internal

_log = log.get(__name__)


class Release(BaseModel):
    """A version of the bundle with the daemon's configuration and units."""

    model_config = ConfigDict(frozen=True)

    revision: str
    """The revision in the environment of the release's daemon. Empty for files that no agent staged."""
    digest: str
    config: str
    units: dict[str, str]
    """Contents by path below ``/etc/systemd/system``."""


class Failure(BaseModel):
    """A release that failed. It is not tried again until ``retry`` of the switch's configuration changes."""

    model_config = ConfigDict(frozen=True)

    revision: str
    retry: str
    reason: str
    message: str


class Releases(BaseModel):
    """The releases of a node."""

    model_config = ConfigDict(frozen=True)

    serving: Release | None = None
    """The release that was proven last. None until one was."""
    previous: tuple[Release, ...] = ()
    """The release that served before, and if that is of the same version, the last one of another."""
    failed: Failure | None = None

    def promote(self, release: Release) -> Self:
        """Return the record after another release was proven."""
        before = [kept for kept in (self.serving, *self.previous) if kept and kept != release]
        others = [index for index, kept in enumerate(before) if kept.digest != release.digest]
        last = before[:1] if not others or others[0] == 0 else [before[0], before[others[0]]]
        return self.model_copy(update={"serving": release, "previous": tuple(last), "failed": None})

    def demote(self, failure: Failure) -> Self:
        """Return the record after the serving release failed and the previous one took its place."""
        serving, *rest = self.previous
        return self.model_copy(update={"serving": serving, "previous": tuple(rest), "failed": failure})


def load(layout: Layout) -> Releases:
    """Return the node's releases. An invalid record counts as missing, so that the node can be changed."""
    try:
        return records.load(layout.releases, Releases) or Releases()
    except Internal as error:
        _log.error("the record of releases is invalid", error=error)
        return Releases()


def staged(layout: Layout) -> Release | None:
    """Return the release that the agent staged, or None. Internal if it is invalid."""
    return records.load(layout.staged, Release)


def installed(layout: Layout) -> Release | None:
    """Return what is on disk, or None if nothing is installed."""
    config = files.read(layout.config)
    if config is None or not layout.current.is_symlink():
        return None
    units = {name: files.read(layout.units / name) for name in (*names.DAEMON_UNITS, *names.SWITCH_UNITS)}
    return Release(
        revision="",
        digest=Path(os.readlink(layout.current)).name,
        config=config.decode(errors="replace"),
        units={name: text.decode(errors="replace") for name, text in units.items() if text is not None},
    )


def is_installed(layout: Layout, release: Release) -> bool:
    """Return whether the daemon's files on disk are those of the release."""
    return _daemon_files(installed(layout)) == _daemon_files(release)


def _daemon_files(release: Release | None) -> tuple[object, ...]:
    if release is None:
        return ()
    return release.digest, release.config, *(release.units.get(name) for name in names.DAEMON_UNITS)


def write_units(layout: Layout, release: Release, unit_names: tuple[str, ...]) -> bool:
    """Write these units of the release, remove those that it lacks; return whether one was changed."""
    changed = [_write_unit(layout, release, name) for name in unit_names]
    return any(changed)


def write_config(layout: Layout, release: Release) -> bool:
    """Write the daemon's configuration and return whether it was changed."""
    return files.write(layout.config, release.config.encode(), mode=0o600)


def link(path: Path, digest: str) -> bool:
    """Point one of the links ``current``, ``proven`` and ``previous`` at a version."""
    return files.link(path, f"versions/{digest}")


def _write_unit(layout: Layout, release: Release, name: str) -> bool:
    path, text = layout.units / name, release.units.get(name)
    return files.remove(path) if text is None else files.write(path, text.encode())
