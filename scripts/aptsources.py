"""Debian's mirrors, as this machine's apt sources name them.

``python scripts/aptsources.py bookworm bookworm-security`` prints a line of sources.list for each suite.
Formats: sources.list(5).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ETC = Path("/etc/apt")
_SUITE = re.compile(
    r"(?:bookworm|trixie|forky|duke|sid|oldstable|stable|testing|unstable)"
    r"(?:-updates|-proposed-updates|-backports|(?P<security>-security))?"
)


@dataclass(frozen=True)
class Source:
    """One archive: where it is, what it has, and the keyring that its source names."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""

    def is_debian(self) -> bool:
        """Return whether the packages are signed by Debian, as far as the source says."""
        return "main" in self.components and (
            not self.signed_by or Path(self.signed_by).name.startswith("debian-")
        )


def mirror(suite: str, etc: Path = ETC) -> str:
    """Return the URI of the archive that has a suite of Debian.

    Every release is in one archive, and its security updates are in another. Raises SystemExit
    when the machine's sources name no such archive.
    """
    security = suite.endswith("-security")
    for source in sources(etc):
        found = [match for match in map(_SUITE.fullmatch, source.suites) if match]
        if source.is_debian() and any(bool(match["security"]) == security for match in found):
            return source.uri
    kind = "security archive" if security else "archive"
    raise SystemExit(f"apt's sources in {etc} name no {kind} of Debian: add one that has {suite}")


def lines(suites: list[str], etc: Path = ETC) -> list[str]:
    """Return a line of sources.list for each suite."""
    return [f"deb {mirror(suite, etc)} {suite} main" for suite in suites]


def sources(etc: Path) -> Iterator[Source]:
    """Yield the binary archives that apt is configured with, in apt's order."""
    parts = sorted((etc / "sources.list.d").glob("*"))
    for path in (etc / "sources.list", *parts):
        if path.suffix == ".list" and path.is_file():
            yield from _one_line_sources(path.read_text(encoding="utf-8"))
        elif path.suffix == ".sources":
            yield from _deb822_sources(path.read_text(encoding="utf-8"))


def _one_line_sources(text: str) -> Iterator[Source]:
    """Parse ``deb [option=value ...] URI suite component ...``; # starts a comment."""
    for line in text.splitlines():
        found = re.fullmatch(
            r"deb\s+(?:\[(.*?)\]\s*)?(\S+)\s+(\S+)((?:\s+\S+)*)\s*", line.partition("#")[0].strip()
        )
        if found:
            options, uri, suite, components = found.groups()
            key = re.search(r"signed-by=(\S+)", options or "", re.IGNORECASE)
            yield Source(uri.rstrip("/"), (suite,), tuple(components.split()), key.group(1) if key else "")


def _deb822_sources(text: str) -> Iterator[Source]:
    """Parse stanzas of ``Field: value`` that blank lines separate; indented lines continue a value."""
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", text):
        pairs = re.findall(r"^([\w-]+):(.*(?:\n[ \t].*)*)", stanza, re.MULTILINE)
        fields = {name.lower(): value.split() for name, value in pairs}
        if "deb" not in fields.get("types", []) or fields.get("enabled", ["yes"])[0].lower() in (
            "no",
            "false",
            "0",
        ):
            continue
        key = fields.get("signed-by", [""])
        for uri in fields.get("uris", []):
            yield Source(
                uri.rstrip("/"),
                tuple(fields.get("suites", [])),
                tuple(fields.get("components", [])),
                key[0] if len(key) == 1 else "",  # a key in place of a keyring's path
            )


if __name__ == "__main__":
    print("\n".join(lines(sys.argv[1:])))
