"""Who imports whom: one way between the packages and within each, and of others' packages only declared ones."""

import configparser
import importlib.metadata
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from benchmarks.structure import find_modules, imports, package_of

ROOT = Path(__file__).parents[1]
MODULES = find_modules(ROOT)
# Each package's rooms (folders, and files in no folder) from the lowest to the highest: a room imports itself and what
# stands before it.
ORDER = {
    "cp_vision": ("shared", "pooling", "layers", "cost", "anatomy", "surgery", "fitting", "models", "commands"),
    "cp_vision.recipes": (
        *(
            "recipe",
            "processes",
            "precision",
            "data",
            "stored",
            "weights",
            "models",
            "evaluation",
            "training",
            "run",
            "progress",
            "cli",
        ),
    ),
    "cp_vision.search": (
        *(
            "types",
            "uncertainty",
            "selection",
            "config",
            "space",
            "observer",
            "study",
            "evaluators.base",
            "context",
        ),
        *("samplers", "evaluators", "executors", "fit", "outputs", "runner", "fit_base", "run_fit", "cli"),
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


# The extras of setup.cfg that a package may import from, where it asks for them in one line.
EXTRAS = {
    "cp_vision": ("plot",),
    "cp_vision.recipes": ("plot", "track", "data"),
    "cp_vision.search": ("search", "plot"),
}


@cache
def imports_of(module):
    """Full names of what a module of ours imports."""
    return list(imports(module, MODULES))


@cache
def owners():
    """The distributions that each top-level name comes from."""
    return importlib.metadata.packages_distributions()


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
        for other in imports_of(module):
            if other in MODULES and other not in before:
                before[other] = module
                queue.append(other)
    return f"{start} -> {end}"


@pytest.mark.parametrize("package", ORDER)
def test_dependencies_run_one_way(package):
    wrong = []
    for module in (module for module in MODULES if package_of(module) == package):
        own = room_of(module, package)
        for other in imports_of(module):
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


def requirements(*sections):
    """Distributions that setup.cfg names: those that always install, and those of extras."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = [setup["options"]["install_requires"], *(setup["options.extras_require"][extra] for extra in sections)]
    return {re.match(r"[\w-]+", line)[0].lower() for text in lines for line in text.split("\n") if line}


# What comes with PyTorch's builds for GPUs, and who imports it where it is there.
WITH_TORCH = {("cp_vision.pooling.gpu_kernel", "triton")}


@pytest.mark.parametrize("package", EXTRAS)
def test_what_a_package_imports_is_declared(package):
    declared = requirements(*EXTRAS[package])
    for module in (module for module in MODULES if package_of(module) == package):
        for other in imports_of(module):
            top = other.partition(".")[0]
            if package_of(other) is None and top not in sys.stdlib_module_names and (module, top) not in WITH_TORCH:
                assert declared & {owner.lower() for owner in owners().get(top, [top])}, (
                    f"{module} imports {top}: not in setup.cfg"
                )


# What others import for us: timm's readers of data sets.
IMPORTED_BY_OTHERS = {"datasets", "webdataset"}


def test_what_is_declared_is_imported():
    tops = {other.partition(".")[0] for module in MODULES for other in imports_of(module)}
    imported = {owner.lower() for top in tops for owner in owners().get(top, [top])}
    assert requirements("search", "plot", "track", "data") - imported == IMPORTED_BY_OTHERS


def test_importing_the_library_needs_no_search():
    code = "import sys, cp_vision; assert not {'optuna', 'ray', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
