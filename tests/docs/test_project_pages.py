"""What the pages about the project itself say is so: its files, its folders, its version."""

import configparser
import re

import pytest
import yaml
from doc_blocks import ROOT

import cp_vision
from benchmarks.structure import PACKAGES, find_modules, package_of

# Pages that tell where things are in the code.
MAPS = (ROOT / "docs" / "architecture.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md")


@pytest.mark.parametrize("page", MAPS, ids=lambda page: page.name)
def test_every_path_of_the_code_that_a_page_names_is_there(page):
    # What a command makes is no part of the checkout.
    named = re.findall(r"`((?:\.?[\w-]+/)+[\w.*-]*|[\w-]+\.(?:py|md|cfg|toml|yml))`", page.read_text())
    named += re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    # In an unpacked source archive the links of cp_vision/ are the folders.
    places = (ROOT, ROOT / "cp_vision", page.parent)
    assert [path for path in named if not any((place / path).exists() for place in places)] == []


def test_the_architecture_names_every_folder_of_the_packages():
    text = (ROOT / "docs" / "architecture.md").read_text()
    modules = find_modules(ROOT)
    folders = {module for module, path in modules.items() if path.name == "__init__.py"}
    for folder in sorted(folders):
        place = folder if package_of(folder) == "cp_vision" else folder.removeprefix("cp_vision.")
        assert f"`{place.replace('.', '/')}/`" in text or folder in PACKAGES


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == cp_vision.__version__
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert citation["license"] == setup["metadata"]["license_expression"]
    (paper,) = citation["references"]
    assert f"title     = {{{paper['title']}}}" in (ROOT / "README.md").read_text()
