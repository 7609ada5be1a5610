"""The distribution's metadata: one version, type markers, licence files."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

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


@pytest.mark.parametrize(
    "package", ["runtime/noderuntime", "operator/noderuntime_operator", "operator/kubectl_noderuntime"]
)
def test_packages_declare_that_they_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_wheel_contains_the_package_of_every_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {Path(path).name for path in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    commands = project["project"]["scripts"]
    assert {"kubectl-noderuntime", "kubectl_complete-noderuntime"} < commands.keys()
    assert {target.partition(".")[0] for target in commands.values()} == packages


def test_extra_of_the_plugin_names_every_library_it_imports() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {requirement.partition("==")[0].replace("pyyaml", "yaml") for requirement in extras["kubectl"]}
    source = "".join(path.read_text() for path in (ROOT / "operator/kubectl_noderuntime").glob("*.py"))
    source += (ROOT / "operator/noderuntime_operator/api/names.py").read_text()
    imported = set(re.findall(r"^(?:from|import) (\w+)", source, re.MULTILINE))
    own = {"kubectl_noderuntime", "noderuntime", "noderuntime_operator"}
    assert imported - own - sys.stdlib_module_names == named


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_lock_and_pyproject_pin_the_same_versions() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {requirement.partition(";")[0].strip() for extra in extras.values() for requirement in extra}
    lock = re.findall(r"^(\S+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    locked = dict(lock)
    assert len(locked) == len(lock)
    assert {one: locked.get(_normalized(one.partition("==")[0])) for one in wanted} == {
        one: one.partition("==")[2] for one in wanted
    }


def test_lock_has_hashes_for_every_package_and_names_no_host() -> None:
    lines = (ROOT / "requirements.lock").read_text().replace("\\\n", " ").splitlines()
    pins = [line for line in lines if re.match(r"\w", line)]
    assert len(pins) > 60
    assert [pin.split()[0] for pin in pins if not re.search(r" --hash=sha256:[0-9a-f]{64}( |$)", pin)] == []
    others = [line for line in lines if line not in pins and not re.match(r"\s*#", line)]
    assert others == []
    assert not re.search(r"://|@|--(?!hash)", "\n".join(pins))


def test_workflows_hooks_and_guides_name_existing_make_targets() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    files = [ROOT / ".pre-commit-config.yaml", *ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    files += [path for path in (ROOT / ".github").rglob("*") if path.is_file()]
    named = {
        (path.name, target)
        for path in files
        for words in re.findall(r"(?:run: |entry: |`)make((?: [a-z][a-z-]*)+)", path.read_text())
        for target in words.split()
    }
    assert len(named) > 10
    assert {one for one in named if one[1] not in targets} == set()


def test_nightly_runs_existing_targets_and_what_test_leaves_out() -> None:
    makefile = (ROOT / "Makefile").read_text()
    nightly = yaml.safe_load((ROOT / ".github/workflows/nightly.yml").read_text())["jobs"]["nightly"]
    targets = {line.split()[0] for line in nightly["strategy"]["matrix"]["target"]}
    assert targets <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    (left_out,) = re.findall(r"^test: .*all checks and tests but (.*)$", makefile, re.MULTILINE)
    assert set(re.split(r", | and ", left_out)) <= targets
