"""What the project says it needs agrees everywhere, keeps its security floors, and is what the lock holds."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONDA_NAMES = {"matplotlib-base": "matplotlib"}
TOOLS_OF_CONDA = {"python", "pip"}
SEVEN = {"ipython", "ipywidgets", "jupyterlab", "litellm", "numpy", "matplotlib", "diskcache"}


def declared() -> dict[str, Requirement]:
    """Return pyproject's dependencies by name."""
    found = [Requirement(text) for text in PYPROJECT["project"]["dependencies"]]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def locked() -> dict[str, set[Version]]:
    """Return what the lock pins, as versions by name (a universal lock may pin one name twice, for two Pythons)."""
    pins: dict[str, set[Version]] = {}
    for match in re.finditer(
        r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE
    ):
        pins.setdefault(canonicalize_name(match[1]), set()).add(Version(match[2]))
    return pins


def test_environment_yml_agrees_with_pyproject() -> None:
    """Conda users get the same packages with the same bounds as pip users."""
    conda: dict[str, Requirement] = {}
    for line in yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]:
        requirement = Requirement(line)
        name = CONDA_NAMES.get(requirement.name, requirement.name)
        conda[canonicalize_name(name)] = requirement
    assert conda.pop("python").specifier == Requirement("python" + PYPROJECT["project"]["requires-python"]).specifier
    assert conda.pop("pip")
    assert {name: str(one.specifier) for name, one in conda.items()} == {
        name: str(one.specifier) for name, one in declared().items()
    }


def test_lock_satisfies_pyproject() -> None:
    """Every declared and every development dependency is pinned to a version that its bounds allow."""
    pins = locked()
    wanted = [*PYPROJECT["project"]["dependencies"], *PYPROJECT["dependency-groups"]["dev"]]
    for requirement in map(Requirement, wanted):
        versions = pins.get(canonicalize_name(requirement.name))
        assert versions, f"{requirement.name} is not in requirements.lock: make lock"
        assert all(requirement.specifier.contains(version) for version in versions), f"{requirement} against {versions}: make lock"


def test_every_pin_of_the_lock_has_hashes_and_no_address() -> None:
    """Nothing is installed without a hash, and the lock names no place to download from."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text)
    pinned = [block for block in blocks if "==" in block.splitlines()[0]]
    assert len(pinned) > 50
    assert [block.splitlines()[0] for block in pinned if "--hash=sha256:" not in block] == []
    assert "://" not in text
    assert "--find-links" not in text


@pytest.mark.parametrize(("name", "floor"), [("jupyterlab", "4.6.2"), ("jupyter-server", "2.20"), ("litellm", "1.84")])
def test_security_floors_hold(name: str, floor: str) -> None:
    """Releases with known holes can neither be declared nor locked (SECURITY.md)."""
    below = Version(f"{floor}.0").release
    older = f"{below[0]}.{below[1]}.{below[2] - 1}" if below[2] else f"{below[0]}.{below[1] - 1}.99"
    assert not declared()[name].specifier.contains(older)
    assert all(version >= Version(floor) for version in locked()[name])


def test_starlette_is_patched_where_the_lock_has_it() -> None:
    """A service framework is no dependency; if one arrives by way of another, it is a release without the known hole."""
    assert all(version >= Version("1.0.1") for version in locked().get("starlette", set()))


@pytest.mark.parametrize("release", ["1.82.7", "1.82.8"])
def test_malicious_releases_of_litellm_are_shut_out_by_name(release: str) -> None:
    """The two poisoned releases stay excluded even if somebody lowers the floor."""
    assert f"!={release}" in str(declared()["litellm"].specifier).split(",")
    assert Version(release) not in locked()["litellm"]


def test_litellm_comes_without_its_proxy() -> None:
    """Only the SDK of litellm is used: no extra of it is asked for, and its proxy's packages are not locked."""
    assert not declared()["litellm"].extras
    assert "litellm-proxy-extras" not in locked()


def test_each_dependency_beyond_the_seven_has_its_reason() -> None:
    """docs/decisions/0002-dependencies.md gives a reason for each package that the project was not built around."""
    page = (ROOT / "docs" / "decisions" / "0002-dependencies.md").read_text(encoding="utf-8")
    assert [name for name in sorted(set(declared()) - SEVEN) if f"| {name} |" not in page] == []
