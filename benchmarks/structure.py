"""How the code is divided: files and lines of every folder, and each package's longest chain of imports.

    python benchmarks/structure.py          # of this checkout
    python benchmarks/structure.py FOLDER   # of another one, an older layout too

Lines are those that ``wc -l`` counts. A chain goes from a module to one that it imports, at its top or inside a
function but not for annotations alone, and stays within its package; modules that import one another are one link.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # In this file's folder Python's own `operator` would be the benchmark of that name.
    del sys.path[0]

import argparse
import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

__all__ = ["PACKAGES", "find_modules", "imports", "longest_chain", "package_of"]

# The packages and the folders of a checkout that they may lie in, the one that is looked for first at the front.
PACKAGES = {
    "cp_vision": ("cp_vision",),
    "cp_vision.recipes": ("cp_vision/recipes", "recipes"),
    "cp_vision.search": ("cp_vision/search", "search"),
}


def package_of(module: str) -> str | None:
    """The package of ours that a module belongs to; None for others'."""
    found = [package for package in PACKAGES if module == package or module.startswith(f"{package}.")]
    return max(found, key=len, default=None)


def find_modules(checkout: Path) -> dict[str, Path]:
    """Every module of the packages in a checkout, by its full name."""
    modules = {}
    for package, folders in PACKAGES.items():
        folder = next(checkout / folder for folder in folders if (checkout / folder).is_dir())
        for path in sorted(folder.resolve().rglob("*.py")):
            parts = path.relative_to(folder.resolve()).with_suffix("").parts
            name = ".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)])
            if package_of(name) == package:
                modules[name] = path
    return modules


def imports(module: str, modules: dict[str, Path]) -> Iterator[str]:
    """Full names of what a module imports, also inside functions; not what it imports for annotations alone.

    Args:
        module: full name of a module.
        modules: those of the checkout, as of ``find_modules``: an imported name that is one of them is given as such.
    """
    path = modules[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    skipped = {inner for node in checks for part in node.body for inner in ast.walk(part)}
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
                yield f"{target}.{alias.name}" if f"{target}.{alias.name}" in modules else target


def longest_chain(package: str, modules: dict[str, Path]) -> list[str]:
    """The longest chain of imports within a package, from its user to what stands at the bottom."""
    graph = {
        module: {other for other in imports(module, modules) if package_of(other) == package and other in modules}
        for module in modules
        if package_of(module) == package
    }

    @cache
    def reach(module: str) -> frozenset[str]:
        found, waiting = {module}, [module]
        while waiting:
            new = graph[waiting.pop()] - found
            found |= new
            waiting += new
        return frozenset(found)

    @cache
    def below(module: str) -> tuple[str, ...]:
        # Those that import one another are passed at no cost, by any of them.
        circle = {other for other in reach(module) if module in reach(other)}
        outside = sorted({other for one in circle for other in graph[one]} - circle)
        return (module, *max(map(below, outside), key=len, default=()))

    return list(max(map(below, sorted(graph)), key=len))


def folder_rows(modules: dict[str, Path]) -> Iterator[tuple[str, int, int]]:
    """Folder, files and lines: each package as a whole, then what lies directly in each of its folders."""
    for package in PACKAGES:
        ours = {module: path for module, path in modules.items() if package_of(module) == package}
        lines = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in ours.items()}
        yield package, len(ours), sum(lines.values())
        folders: dict[str, list[int]] = {}
        for module, path in ours.items():
            name = module if path.name == "__init__.py" else module.rpartition(".")[0]
            folders.setdefault(name, []).append(lines[module])
        for name, counts in folders.items():
            yield f"&nbsp; {name.removeprefix(package).removeprefix('.') or '(no folder)'}", len(counts), sum(counts)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).parents[1], help="default: this one")
    modules = find_modules(parser.parse_args().checkout)
    print("| folder | files | lines |\n|---|---|---|")
    for name, files, lines in folder_rows(modules):
        print(f"| {name} | {files} | {lines} |")
    print("\n| package | longest chain | |\n|---|---|---|")
    for package in PACKAGES:
        chain = longest_chain(package, modules)
        print(f"| {package} | {len(chain)} | {' → '.join(name.removeprefix(f'{package}.') for name in chain)} |")


if __name__ == "__main__":
    main()
