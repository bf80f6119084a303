"""What is declared, what is shipped, and which import pulls what."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

HEAVY = ("accelerate", "deepspeed", "peft", "torch", "transformers", "trl", "vllm")
NOT_IN_RMKIT = ("datasets", "matplotlib", "numpy", "pandas", "scipy", "yaml")
ENGINES = ("deepspeed", "transformers", "trl", "vllm")

# Module -> packages that importing it must not load. Lists are what a user of the module alone may lack or pay for.
FORBIDDEN: dict[str, tuple[str, ...]] = {
    "rmkit": HEAVY + NOT_IN_RMKIT,
    "rmkit.data": HEAVY,
    "rmkit.evaluation": HEAVY,
    "rmkit.cleaning.decontamination": HEAVY,
    "rmkit.cleaning.duplicates": HEAVY,
    "rmkit.cleaning.filters": HEAVY,
    "rmkit.errors": HEAVY + NOT_IN_RMKIT,
    "rmkit.schema": HEAVY,
    "rmkit.rubric": HEAVY,
    "rmkit.scores": HEAVY,
    "rmkit.prompts": HEAVY,
    "rmkit.server.run": HEAVY,
    "rmkit.client": (*HEAVY, "datasets", "fastapi", "matplotlib", "pydantic", "scipy"),
    "rmkit.losses": ENGINES,
    "rmkit.distances": ENGINES,
    "rmkit.score_tokens": ("deepspeed", "trl", "vllm"),
    "rmkit.judge": ("deepspeed", "trl", "vllm"),
    "rmkit.engines.transformers": ("deepspeed", "trl", "vllm"),
    "rmkit.training": ("trl", "vllm"),
    "rmkit.rewards": HEAVY,
}

# Package -> the only modules of rmkit that may import it at all, even inside a function.
ONLY_IN: dict[str, set[str]] = {
    "vllm": {"engines/vllm.py", "engines/vllm_sampler.py"},
    "trl": {"training/sft.py"},
}

# The modules, by path or folder, that may import packages of an extra; all others live on the core's dependencies.
OF_AN_EXTRA = ("engines/vllm.py", "engines/vllm_sampler.py", "scoring/ray.py", "server/", "training/")

# Packages of rmkit, from below: each imports only packages that stand before it.
LAYERS = (
    "data", "raw", "cleaning", "preparation", "engines", "scoring", "evaluation", "inspection", "training", "server",
    "rewards", "policy",
)  # fmt: skip

PROBE = """
import importlib, sys
importlib.import_module(sys.argv[1])
print(*sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[2:])))
"""


def loaded_by(module: str, packages: tuple[str, ...]) -> list[str]:
    """Those of `packages` that are loaded after importing `module` in a fresh interpreter."""
    command = [sys.executable, "-W", "ignore", "-c", PROBE, module, *packages]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1].split()


def imported_packages(source: str) -> set[str]:
    """Top-level names of every absolute import statement in a source text, wherever it stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


def imports_upwards(root: Path, layers: tuple[str, ...]) -> list[str]:
    """Imports of packages in `root` that import one above their own, as "module.py: package"."""
    found = []
    for below, package in enumerate(layers):
        for path in sorted((root / package).rglob("*.py")):
            nodes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
            names = {(node.module or "").split(".")[1] for node in nodes if (node.module or "").startswith("rmkit.")}
            found += [f"{package}/{path.name}: {name}" for name in layers[below + 1 :] if name in names]
    return found


def normalise(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(names: Iterable[str]) -> set[str]:
    """The installed distributions that provide top-level packages, by normalised name; none for stdlib ones."""
    providers = importlib.metadata.packages_distributions()
    third_party = set(names) - sys.stdlib_module_names - {"rmkit"}
    return {normalise(providers.get(name, [name])[0]) for name in third_party}


def declared(requirements: Iterable[str]) -> set[str]:
    """The normalised names of requirement strings, without bounds."""
    return {normalise(re.split(r"[\[=<>~! ;]", requirement)[0]) for requirement in requirements}


def pins_without_reason(text: str) -> list[str]:
    """Requirement strings of a pyproject text with no comment on their line and none on the line above."""
    lines = text.splitlines()
    requirement = re.compile(r'"[A-Za-z][\w.-]*(\[[\w,-]+\])?\s*(==|~=|>=|<=|<|>)[^"]*"')
    found = []
    for number, line in enumerate(lines):
        match = requirement.search(line)
        if not match or line.startswith("requires-python"):
            continue
        above = lines[number - 1].strip() if number else ""
        if not re.search(r"#\s*\w", line[match.end() :]) and not above.startswith("#"):
            found.append(match.group())
    return found


@pytest.fixture(scope="module")
def pyproject(repo: Path) -> dict[str, Any]:
    return tomllib.loads((repo / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def wheel(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names of the files in the wheel, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    result = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = folder.glob("rmkit-*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_extras_are_the_promised_ones(pyproject: dict[str, Any]) -> None:
    assert set(pyproject["project"]["optional-dependencies"]) == {
        "train", "qlora", "vllm", "vllm-cpu", "ray", "rlhf", "server", "dev",
    }  # fmt: skip
    assert pyproject["project"]["requires-python"] == ">=3.11"


def test_both_vllm_builds_have_one_version(pyproject: dict[str, Any]) -> None:
    extras = pyproject["project"]["optional-dependencies"]
    (gpu,), (cpu,) = extras["vllm"], extras["vllm-cpu"]
    assert gpu.partition("==")[2] == cpu.partition("==")[2] != ""


def test_every_requirement_is_bounded(pyproject: dict[str, Any]) -> None:
    project = pyproject["project"]
    requirements = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    assert len(requirements) > 15
    assert [pin for pin in requirements if "==" not in pin and not (">=" in pin and "<" in pin)] == []


def test_every_pin_has_its_reason(repo: Path) -> None:
    assert pins_without_reason((repo / "pyproject.toml").read_text("utf-8")) == []


def test_a_pin_without_reason_is_found() -> None:
    text = 'a = [\n  "torch==2.13.0",\n  "numpy>=2,<3",  #\n  "trl==1.16.0",  # why\n  # why\n  "peft>=1",\n]\n'
    assert pins_without_reason(text) == ['"torch==2.13.0"', '"numpy>=2,<3"']


def test_wheel_holds_the_library_and_nothing_else(wheel: list[str]) -> None:
    assert {name.partition("/")[0] for name in wheel if ".dist-info/" not in name} == {"rmkit"}
    assert {Path(name).suffix for name in wheel if ".dist-info/" not in name} <= {".jinja", ".py", ".yaml", ".typed"}


def test_wheel_holds_every_rubric_and_module(repo: Path, wheel: list[str]) -> None:
    rubrics = {path.relative_to(repo).as_posix() for path in (repo / "rmkit" / "rubrics").glob("*.yaml")}
    modules = {path.relative_to(repo).as_posix() for path in (repo / "rmkit").rglob("*.py")}
    assert len(rubrics) >= 3
    assert rubrics | modules | {"rmkit/py.typed", "rmkit/training/model_card.md.jinja"} <= set(wheel)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel)


def test_licence_is_apache(repo: Path) -> None:
    text = (repo / "LICENSE").read_text("utf-8")
    assert "Apache License" in text and "9. Accepting Warranty or Additional Liability" in text


@pytest.mark.parametrize("module", FORBIDDEN)
def test_import_pulls_nothing_heavy(module: str) -> None:
    assert loaded_by(module, FORBIDDEN[module]) == []


def test_a_heavy_import_is_found() -> None:
    assert loaded_by("numpy", ("numpy", "torch")) == ["numpy"]


@pytest.mark.parametrize("package", ONLY_IN)
def test_package_is_imported_only_where_it_belongs(package: str, repo: Path) -> None:
    root = repo / "rmkit"
    importers = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if package in imported_packages(path.read_text("utf-8"))
    }
    assert importers == ONLY_IN[package]


def test_a_hidden_import_is_found() -> None:
    source = "from . import trl\ndef f():\n    import vllm.config as c\n    from torch.nn import Linear\n"
    assert imported_packages(source) == {"vllm", "torch"}


def test_packages_import_downwards(repo: Path) -> None:
    root = repo / "rmkit"
    assert {path.parent.name for path in root.glob("*/__init__.py")} == set(LAYERS)
    assert imports_upwards(root, LAYERS) == []


def test_an_import_upwards_is_found(tmp_path: Path) -> None:
    for package, line in (("low", "def f():\n    from rmkit.high.names import g\n"), ("high", "import rmkit\n")):
        (tmp_path / package).mkdir()
        (tmp_path / package / "module.py").write_text(line, "utf-8")
    assert imports_upwards(tmp_path, ("low", "high")) == ["low/module.py: high"]


def test_imports_of_the_core_are_dependencies(repo: Path, pyproject: dict[str, Any]) -> None:
    root = repo / "rmkit"
    core = [path for path in root.rglob("*.py") if not path.relative_to(root).as_posix().startswith(OF_AN_EXTRA)]
    imported = distributions(name for path in core for name in imported_packages(path.read_text("utf-8")))
    assert "torch" in imported
    assert imported - declared(pyproject["project"]["dependencies"]) == set()


def test_all_imports_are_declared(repo: Path, pyproject: dict[str, Any]) -> None:
    files = [path for folder in ("rmkit", "data_prep", "train", "evaluate") for path in (repo / folder).rglob("*.py")]
    imported = distributions(name for path in files for name in imported_packages(path.read_text("utf-8")))
    project = pyproject["project"]
    known = declared([*project["dependencies"], *sum(project["optional-dependencies"].values(), [])])
    assert imported - known == set()


def test_script_folders_are_no_packages(repo: Path) -> None:
    folders = [repo / name for name in ("data_prep", "train", "evaluate")]
    assert [folder.name for folder in folders if (folder / "__init__.py").exists()] == []
    # A script's folder comes first on its search path: one named like a dependency would hide it.
    taken = set(HEAVY) | set(NOT_IN_RMKIT) | {"rmkit", "tokenizers", "rewardbench"}
    assert [path.name for folder in folders for path in folder.glob("*.py") if path.stem in taken] == []
