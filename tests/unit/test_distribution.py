"""The distribution's metadata: one version, type markers, licence files."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import noderuntime
from noderuntime.cli import run

ROOT = Path(__file__).parents[2]


def test_chart_metadata_and_command_line_have_one_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"noderuntime {noderuntime.__version__}\n")
    assert version("noderuntime") == noderuntime.__version__
    chart = (ROOT / "charts/noderuntime/Chart.yaml").read_text()
    named = dict(re.findall(r"^(version|appVersion): (\S+)$", chart, re.MULTILINE))
    assert named == {"version": noderuntime.__version__, "appVersion": noderuntime.__version__}


def test_pyproject_reads_the_version_from_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    source = project["tool"]["hatch"]["version"]["path"]
    assert ROOT / source == Path(noderuntime.__file__)


@pytest.mark.parametrize("package", ["runtime/noderuntime", "operator/noderuntime_operator"])
def test_packages_declare_that_they_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
