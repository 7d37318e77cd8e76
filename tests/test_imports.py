"""Who imports whom: one way between the packages and within each, and what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cp_vision

PACKAGE = Path(cp_vision.__file__).parent
# Each package's rooms (folders, and files in no folder) from the lowest to the highest: a room imports itself and what
# stands before it.
ORDER = {
    "cp_vision": ("shared", "pooling", "layers", "cost", "anatomy", "surgery", "models", "commands"),
    "cp_vision.recipes": (
        *("recipe", "processes", "precision", "data", "models", "evaluation", "training", "run", "progress", "cli"),
    ),
    "cp_vision.search": (
        *(
            "types",
            "selection",
            "config",
            "space",
            "observer",
            "study",
            "evaluators.base",
            "evaluators.train",
            "context",
        ),
        *("context", "samplers", "evaluators", "executors", "outputs", "runner", "cli"),
    ),
}
BELOW = {
    "cp_vision": {"cp_vision"},
    "cp_vision.recipes": {"cp_vision", "cp_vision.recipes"},
    "cp_vision.search": {"cp_vision", "cp_vision.recipes", "cp_vision.search"},
}
OUTSIDE = {
    "cp_vision": {"optuna", "ray", "sklearn", "yaml", "pydantic"},
    "cp_vision.recipes": {"optuna", "ray"},
    "cp_vision.search": set(),
}


def package_of(module):
    """The package of ours that a module belongs to; None for others'."""
    for package in ("cp_vision.search", "cp_vision.recipes", "cp_vision"):
        if module == package or module.startswith(f"{package}."):
            return package
    return None


def files(package):
    """The files of a package by module name, those of sub-folders too."""
    root = PACKAGE.joinpath(*package.split(".")[1:])
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if package == "cp_vision" and parts[0] in ("recipes", "search"):
            continue
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        yield ".".join([package, *parts]), path


FILES = {package: dict(files(package)) for package in ORDER}
ALL = {module: path for found in FILES.values() for module, path in found.items()}


def imports(module, path):
    """Absolute names of all modules that a file imports, also inside functions; not those for annotations alone."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text())
    checks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    skipped = {inner for node in checks for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1] if node.level else []
            target = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{target}.{alias.name}" if f"{target}.{alias.name}" in ALL else target


def room_of(module, package):
    """Place of a module's room in the order of its package; None for the package itself."""
    name = module.removeprefix(package).removeprefix(".")
    if not name:
        return None
    longest = max((r for r in ORDER[package] if name == r or name.startswith(f"{r}.")), key=len, default=None)
    assert longest is not None, f"{module} lies in no room of {package}: {', '.join(ORDER[package])}"
    return ORDER[package].index(longest)


def chain(start, end):
    """The shortest chain of imports from one module to another."""
    before, queue = {start: None}, [start]
    for module in queue:
        if module == end:
            found = []
            while module is not None:
                found.append(module)
                module = before[module]
            return " -> ".join(reversed(found))
        for other in imports(module, ALL[module]):
            if other in ALL and other not in before:
                before[other] = module
                queue.append(other)
    return f"{start} -> {end}"


@pytest.mark.parametrize("package", ORDER)
def test_dependencies_run_one_way(package):
    wrong = []
    for module, path in FILES[package].items():
        own = room_of(module, package)
        for other in imports(module, path):
            theirs = package_of(other)
            if theirs is None:
                assert other.partition(".")[0] not in OUTSIDE[package], f"{module} imports {other}"
            elif theirs not in BELOW[package]:
                wrong.append(chain(module, other))
            elif theirs == package and own is not None:
                place = room_of(other, package)
                if place is None or place > own:
                    wrong.append(chain(module, other))
    assert not wrong, "\n".join(wrong)


def test_importing_the_library_needs_no_search():
    code = "import sys, cp_vision; assert not {'optuna', 'ray', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
