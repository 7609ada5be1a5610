"""Which mirrors of Debian a machine's apt sources name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aptsources import lines, mirror

ROOT = Path(__file__).parents[3]
NOT_OURS = {".git", ".venv", ".coverage", ".hypothesis", "__pycache__", "build", "dist"}
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

DEB822 = f"""\
# Modernized from /etc/apt/sources.list
Types: deb deb-src
# http://commented.example/debian
URIs: http://mirror.example/debian/
  http://second.example/debian
Suites: bookworm bookworm-updates
Components: main
 contrib
Signed-By: {KEYRING}

Types: deb
uris: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
"""

ONE_LINE = f"""\
# deb http://commented.example/debian bookworm main
deb-src http://sources.example/debian bookworm main

deb [ arch=amd64 signed-by={KEYRING} ] http://mirror.example/debian/ bookworm main non-free # near
deb\thttp://mirror.example/debian-security bookworm-security main
"""


def etc_apt(directory: Path, **files: str) -> Path:
    """Write sources.list as ``sources_list``, and parts as ``name_list`` and ``name_sources``."""
    (directory / "sources.list.d").mkdir()
    for name, content in files.items():
        path = "sources.list" if name == "sources_list" else f"sources.list.d/{name.replace('_', '.')}"
        (directory / path).write_text(content)
    return directory


@pytest.mark.parametrize(
    "files", [{"sources_list": ONE_LINE}, {"debian_list": ONE_LINE}, {"debian_sources": DEB822}]
)
def test_mirrors_are_read_from_every_kind_of_file(tmp_path: Path, files: dict[str, str]) -> None:
    suites = ["bookworm", "bookworm-updates", "bookworm-security", "sid"]
    assert lines(suites, etc_apt(tmp_path, **files)) == [
        "deb http://mirror.example/debian bookworm main",
        "deb http://mirror.example/debian bookworm-updates main",
        "deb http://mirror.example/debian-security bookworm-security main",
        "deb http://mirror.example/debian sid main",
    ]


@pytest.mark.parametrize(
    "other",
    [
        "deb [signed-by=/usr/share/keyrings/vendor.gpg] http://vendor.example/apt bookworm main\n",
        "deb http://vendor.example/apt bookworm stable\n",
        "deb http://vendor.example/apt nodistro main\n",
        "deb http://vendor.example/apt bookworm-vendor main\n",
        "deb http://vendor.example/apt bookworm-vendor/\n",
    ],
)
def test_archives_of_other_vendors_are_skipped(tmp_path: Path, other: str) -> None:
    place = etc_apt(tmp_path, a_list=other, debian_sources=DEB822)
    assert mirror("bookworm", place) == "http://mirror.example/debian"


def test_deb822_archives_of_other_vendors_are_skipped(tmp_path: Path) -> None:
    vendor = DEB822.replace("mirror.example", "vendor.example").replace(
        KEYRING, "/etc/apt/keyrings/vendor.gpg"
    )
    place = etc_apt(tmp_path, a_sources=vendor, debian_sources=DEB822)
    assert mirror("bookworm", place) == "http://mirror.example/debian"


@pytest.mark.parametrize("word", ["no", "No", "false"])
def test_disabled_sources_are_skipped(tmp_path: Path, word: str) -> None:
    off = DEB822.replace("mirror.example", "off.example").replace("Types:", f"Enabled: {word}\nTypes:")
    place = etc_apt(
        tmp_path, a_sources=off, b_sources=DEB822, c_save="deb http://saved.example/ bookworm main"
    )
    assert mirror("bookworm", place) == "http://mirror.example/debian"
    assert mirror("bookworm-security", place) == "http://mirror.example/debian-security"


def test_an_embedded_key_is_not_taken_for_a_keyring(tmp_path: Path) -> None:
    key = "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBGPL0BUBEADmW5NdOOHwPIJlgPu6\n"
    place = etc_apt(tmp_path, debian_sources=DEB822.replace(f" {KEYRING}\n", key))
    assert mirror("bookworm", place) == "http://mirror.example/debian"


def test_a_missing_archive_is_an_error_that_names_the_suite(tmp_path: Path) -> None:
    place = etc_apt(tmp_path, sources_list="deb http://mirror.example/debian bookworm main\n")
    with pytest.raises(SystemExit, match=re.escape(f"{tmp_path} name no security archive of Debian")):
        mirror("bookworm-security", place)


def test_no_file_of_the_project_names_a_mirror_or_index() -> None:
    host = re.compile(rb"\b(deb|ftp|security|snapshot|archive)\.debian\.org|\bpypi\.org|pythonhosted\.org")
    files = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
    ours = [
        path for path in files if NOT_OURS.isdisjoint(path.parts) and not path.parts[0].endswith("_cache")
    ]
    named = [str(path) for path in ours if host.search((ROOT / path).read_bytes())]
    assert (named, len(ours) > 500) == ([], True)
