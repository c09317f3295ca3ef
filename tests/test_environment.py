"""The files that say what to install agree with each other.

environment.yml is parsed and compared. That conda finds a set of packages for it is NOT tested: it takes a
channel's data, which a test without a network does not have.
"""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import rattler
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import diffusion_edu
from scripts import colab

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
CONDA = [item for item in ENVIRONMENT["dependencies"] if isinstance(item, str)]
PIP = [line for item in ENVIRONMENT["dependencies"] if isinstance(item, dict) for line in item["pip"]]
PIP_OPTIONS = [line for line in PIP if line.startswith("-")]
PIP_PACKAGES = [line for line in PIP if not line.startswith("-")]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
)
DECLARED = [
    Requirement(line)
    for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in lines
]


def test_environment_yml_has_known_keys_and_conda_forge_alone_no_solve_is_tested():
    assert set(ENVIRONMENT) == {"name", "channels", "dependencies"}
    assert ENVIRONMENT["channels"] == ["conda-forge"]
    groups = [item for item in ENVIRONMENT["dependencies"] if not isinstance(item, str)]
    assert [set(group) for group in groups] == [{"pip"}]
    assert "pip" in CONDA, "conda warns where pip has a section and is not itself a dependency"


@pytest.mark.parametrize("item", CONDA)
def test_conda_item_parses_as_a_match_spec_no_solve_is_tested(item):
    assert rattler.MatchSpec(item).name is not None


def test_a_malformed_conda_item_is_refused():
    with pytest.raises(Exception, match=r"(?i)invalid|unable|version"):
        rattler.MatchSpec("python=>=3..1,,")


def test_conda_python_is_one_that_the_project_serves_no_solve_is_tested():
    (python,) = [item for item in CONDA if re.match(r"python\b", item)]
    spec = rattler.VersionSpec(str(rattler.MatchSpec(python).version))
    served = SpecifierSet(PROJECT["requires-python"])
    chosen = [f"3.{minor}" for minor in range(40) if spec.matches(rattler.Version(f"3.{minor}.0"))]
    assert chosen and all(Version(version) in served for version in chosen)


@pytest.mark.parametrize("line", PIP_OPTIONS)
def test_pip_option_of_environment_yml_points_at_what_exists(line):
    option, value = line.split(maxsplit=1)
    if option == "-e":
        name, extras = re.fullmatch(r"(.+?)(?:\[(.+)\])?", value).groups()
        assert name == "."
        assert set((extras or "").split(",")) <= set(PROJECT["optional-dependencies"])
    elif option == "-c":
        assert (ROOT / value).is_file()
    else:
        assert option == "--extra-index-url" and value in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_environment_yml_installs_the_course_under_the_same_constraints():
    assert {"-e .[course]", "-c constraints.txt"} <= set(PIP_OPTIONS)


def test_pip_packages_of_environment_yml_agree_with_pyproject():
    declared = {canonicalize_name(requirement.name): requirement.specifier for requirement in DECLARED}
    for line in PIP_PACKAGES:
        requirement = Requirement(line)
        assert declared[canonicalize_name(requirement.name)] == requirement.specifier


@pytest.mark.parametrize("requirement", DECLARED, ids=[requirement.name for requirement in DECLARED])
def test_each_declared_dependency_is_pinned_within_its_bounds(requirement):
    name = canonicalize_name(requirement.name)
    assert name in PINS, f"{name} has no pin: run `make constraints`."
    assert Version(PINS[name]) in requirement.specifier


def test_constraints_are_exact_sorted_and_without_local_suffix():
    assert list(PINS) == sorted(PINS)
    assert all(canonicalize_name(name) == name and Version(pin).local is None for name, pin in PINS.items())


def test_the_bare_package_depends_on_five_packages():
    names = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert names == {"torch", "numpy", "safetensors", "tqdm", "accelerate"}


def test_citation_and_pyproject_give_one_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == PROJECT["version"]
    assert citation["license"] == PROJECT["license"].split(" AND ")[0], "the rest is that of the data"


def test_makefile_and_pyproject_ask_for_the_same_python():
    asked = re.search(r"version_info < \((\d+), (\d+)\)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert PROJECT["requires-python"] == f">={asked[1]}.{asked[2]}"


@pytest.mark.parametrize(("verb", "resolution"), [("test-oldest", "lowest-direct"), ("test-newest", "highest")])
@pytest.mark.parametrize(
    ("index", "backend"), [("https://download.pytorch.org/whl/cu130", "cu130"), ("", None)], ids=["cu130", "PyPI"]
)
def test_oldest_and_newest_are_of_pytorch_too(tmp_path, verb, resolution, index, backend):
    command = ["make", "--dry-run", f"VENV={tmp_path / '.venv'}", f"TORCH_INDEX={index}", verb]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.replace("\\\n", " ")
    (install,) = [line.split() for line in said.splitlines() if "uv pip install" in line]
    assert install[install.index("--resolution") + 1] == resolution
    assert ("--torch-backend" in install) == (backend is not None)
    assert backend is None or install[install.index("--torch-backend") + 1] == backend
    assert "--override" not in install and "-c" not in install, "a pin holds PyTorch, so that no other one is tried"


def test_binder_conda_and_colab_take_the_same_pins_and_the_oldest_python_that_the_project_serves():
    binder = yaml.safe_load((ROOT / ".binder" / "environment.yml").read_text(encoding="utf-8"))
    (python,) = [item for item in binder["dependencies"] if item.startswith("python=")]
    assert PROJECT["requires-python"] == f">={python.removeprefix('python=')}"
    assert [item for item in CONDA if item.startswith("python")] == [python]
    after = (ROOT / ".binder" / "postBuild").read_text(encoding="utf-8")
    assert "sed -n '/^torch==/p' constraints.txt" in after and '-c constraints.txt -e ".[course]"' in after
    assert "constraints.txt" in colab.source() and "diffusion-edu[course]" in colab.source()


def test_the_weekly_job_runs_its_verbs_on_pythons_that_the_project_serves():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "weekly.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["run"]
    verbs = {row["verb"]: row["python"] for row in job["strategy"]["matrix"]["include"]}
    assert verbs.keys() == {"test-oldest", "test-newest", "test-deep", "browser"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{verb}: " in makefile for verb in verbs)
    assert PROJECT["requires-python"] == f">={verbs['test-oldest']}", "the oldest releases on the oldest Python"
    assert any(step.get("run", "").startswith("make ${{ matrix.verb }}") for step in job["steps"])


def test_newest_releases_are_looked_for_each_time(tmp_path):
    """Not only when pyproject.toml has changed: a release does not touch a file."""
    venv = tmp_path / ".venv"
    venv.mkdir()
    for stamp in (".made", ".resolved"):
        (venv / stamp).touch()
    command = ["make", "--dry-run", f"VENV={venv}", "RESOLUTION=highest", f"{venv}/.resolved"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "uv pip install --upgrade" in said


def test_the_package_says_its_version():
    assert diffusion_edu.__version__ == PROJECT["version"]


def test_the_check_of_links_reads_the_notebooks():
    # a folder would be searched for pages of text alone
    assert "notebooks/*.ipynb" in (ROOT / ".github" / "workflows" / "links.yml").read_text(encoding="utf-8")
