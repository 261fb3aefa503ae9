"""The rules of docs/architecture.md: what may import what, and what starting a command loads."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"bench", "registry", "baselines"}
HEAVY = ["torch", "sqlalchemy", "optuna", "pandas", "numpy", "scipy", "timm", "sklearn"]


def imports_of(file: Path, *, top_only: bool = False) -> set[str]:
    tree = ast.parse(file.read_text())
    nodes = tree.body if top_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} has a relative import"
            names = {f"bench.{alias.name}" for alias in node.names}
            found |= names if node.module == "bench" else {node.module}
    return found


def files(*places: str) -> list[Path]:
    found = [f for place in places for f in sorted((ROOT / place).rglob("*.py"))]
    assert found
    return found


@pytest.mark.parametrize("file", files("registry"), ids=lambda f: f.name)
def test_the_registry_imports_the_standard_library_and_itself(file):
    roots = {name.split(".")[0] for name in imports_of(file)}
    assert roots <= set(sys.stdlib_module_names) | {"registry"}


@pytest.mark.parametrize("file", files("baselines"), ids=lambda f: f.name)
def test_baselines_import_nothing_of_ours_but_themselves(file):
    roots = {name.split(".")[0] for name in imports_of(file)}
    assert not roots & {"bench", "registry"}


@pytest.mark.parametrize("file", files("bench/stats"), ids=lambda f: f.name)
def test_statistics_import_nothing_of_ours(file):
    ours = {n for n in imports_of(file) if n.split(".")[0] in OURS}
    assert all(name.startswith("bench.stats") for name in ours)


@pytest.mark.parametrize("file", files("bench"), ids=lambda f: str(f.relative_to(ROOT)))
def test_torch_is_imported_only_where_networks_are_trained(file):
    place = str(file.relative_to(ROOT))
    if place.startswith(("bench/train/", "bench/testing/")):
        return
    top = {name.split(".")[0] for name in imports_of(file, top_only=True)}
    assert not top & {"torch", "timm", "torchvision", "baselines"}
    if place != "bench/execute/unit.py":
        assert "torch" not in imports_of(file)
    assert "baselines" not in {name.split(".")[0] for name in imports_of(file)}


def package_of(name: str) -> str:
    """Return the package of slicebench that contains a module, or the module itself."""
    return ".".join(name.split(".")[:2]) if name.startswith("bench.") else name.split(".")[0]


def test_no_package_imports_in_a_circle():
    """Imports inside functions are included."""
    imported = {}
    for file in files("bench", "registry", "baselines"):
        place = package_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
        ours = {package_of(n) for n in imports_of(file) if n.split(".")[0] in OURS}
        imported.setdefault(place, set()).update(ours - {place})
    assert "bench.store" in imported["bench.plan"]
    TopologicalSorter(imported).prepare()


@pytest.mark.parametrize("file", files("bench/train"), ids=lambda f: f.name)
def test_training_knows_neither_the_plan_nor_the_store(file):
    known = {package_of(name) for name in imports_of(file)}
    assert not known & {"bench.plan", "bench.store", "bench.execute", "bench.data", "bench.report"}


@pytest.mark.parametrize("file", files("bench/cli"), ids=lambda f: f.name)
def test_the_command_line_loads_typer_and_the_standard_library(file):
    allowed = {"bench.cli", "registry.errors"}
    for name in imports_of(file, top_only=True):
        known = name in allowed or name.split(".")[0] in sys.stdlib_module_names | {"typer"}
        assert known or name.startswith("bench.cli"), name


@pytest.mark.parametrize(
    ("words", "free_of"),
    [
        (["--help"], HEAVY),
        (["run", "--help"], HEAVY),
        (["report", "--help"], HEAVY),
        (["list", "models"], HEAVY),
        (["list", "encoders"], HEAVY),
        (["list", "datasets"], HEAVY),
        (["report", "--db", "results.db"], ["torch", "timm", "optuna", "baselines"]),
        (["status", "--db", "results.db"], ["torch", "timm", "optuna", "baselines"]),
    ],
    ids=" ".join,
)
def test_a_command_loads_no_more_than_it_needs(words, free_of):
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['bench', *{words!r}]\n"
        "try:\n    runpy.run_module('bench', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        f"print('LOADED', sorted(loaded.intersection({free_of!r})))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"
