"""Imports point down the layer table, vendor packages stay with their owners, and no file knows a machine's paths."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dsp"

# The design's layer table: what each package may import besides itself.
LAYERS: dict[str, set[str]] = {
    "base": set(),
    "pb": set(),
    "openrtb": {"base", "pb"},
    "catalog": {"base", "openrtb"},
    "audience": {"base"},
    "control": {"base"},
    "log": {"base"},
    "model": {"base", "catalog", "audience", "log"},
    "bidder": {"base", "openrtb", "catalog", "audience", "control", "log", "model"},
    "ledger": {"base", "openrtb", "catalog", "audience", "control", "log"},
    "ingress": {"base", "pb", "openrtb", "bidder"},
}
LAYERS["console"] = set(LAYERS) - {"ingress"}
LAYERS["market"] = set(LAYERS) - {"console"}
LAYERS["cli"] = set(LAYERS)

# Who may import a vendor package; what is not listed is free.
VENDORS: dict[str, set[str]] = {
    "onnxruntime": {"model"},
    "onnx": {"model"},
    "sklearn": {"model"},
    "aerospike": {"audience"},
    "lmdb": {"audience"},
    "prometheus_client": {"base"},
    "structlog": {"base"},
    "opentelemetry": {"base"},
    "alembic": {"ledger"},
    "psycopg": {"ledger"},
    "grpc": {"ingress", "market", "ledger", "bidder"},  # the market is a client
    "grpc_health": {"ingress"},
    "grpc_reflection": {"ingress"},
    "pygrpc_native": {"ingress"},
    "granian": {"ingress", "ledger", "console"},
    "starlette": {"console"},
    "argon2": {"console"},
    "pyotp": {"console"},
    "jinja2": {"console"},
    "sqlalchemy": {"catalog", "ledger", "console", "market"},  # the market checks the books for itself
    "typer": {"cli"},
}


def imports(path: Path) -> Iterator[str]:
    """Dotted names of everything a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(package: str) -> list[Path]:
    return sorted((PACKAGE / package).rglob("*.py"))


def packages() -> list[str]:
    return sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())


def layer_violations(package: str) -> set[str]:
    found = set()
    for path in sources(package):
        for module in imports(path):
            parts = module.split(".")
            if parts[0] == "dsp" and len(parts) > 1 and (PACKAGE / parts[1]).is_dir():
                target = parts[1]
                if target != package and target not in LAYERS[package]:
                    found.add(f"{path.relative_to(PACKAGE)} imports dsp.{target}")
    return found


def test_every_package_has_its_line_in_the_table() -> None:
    assert set(packages()) <= set(LAYERS)


@pytest.mark.parametrize("package", packages())
def test_imports_point_down_the_layer_table(package: str) -> None:
    assert layer_violations(package) == set()


@pytest.mark.parametrize("package", [p for p in packages() if p != "pb"])
def test_vendor_packages_are_imported_by_their_owners_only(package: str) -> None:
    found = set()
    for path in sources(package):
        for module in imports(path):
            owners = VENDORS.get(module.split(".")[0])
            if owners is not None and package not in owners:
                found.add(f"{path.relative_to(PACKAGE)} imports {module}")
    assert found == set()


def test_the_table_has_no_cycle() -> None:
    done: set[str] = set()
    while len(done) < len(LAYERS):
        ready = {package for package, below in LAYERS.items() if package not in done and below - {package} <= done}
        assert ready, f"a cycle among {set(LAYERS) - done}"
        done |= ready


def test_nothing_imports_tests_or_benchmarks() -> None:
    for package in packages():
        for path in sources(package):
            assert not {m.split(".")[0] for m in imports(path)} & {"tests", "bench", "proto"}, path


def repository_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: which files belong to the repository is not known")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_file_holds_a_path_of_one_machine() -> None:
    # Put together from parts, or this file would be found.
    pattern = re.compile(("/" + "(?:home|root|Users|work)" + "/[A-Za-z0-9_.]").encode())
    found = []
    for path in repository_files():
        for match in pattern.finditer(path.read_bytes()):
            found.append(f"{path.relative_to(ROOT)}: {match.group().decode()}")
    assert found == []
