"""The documentation as a site: every link of it leads somewhere, it loads nothing from elsewhere, and the files around it are sound."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kdzoo.version import VERSION

ROOT = Path(__file__).resolve().parent.parent
LOADED = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=["']?(https?:)?//""")
"""what a browser would fetch from another host while it shows a page"""
OWN_FILE = re.compile(r"""<(?:script|link|img|a)\b[^>]*?\b(?:src|href)=["']?(?!https?:|//|data:|mailto:|#)([^"'> ]+)""")
"""what a page loads or leads to in the site itself"""


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(root / "docs" / "mkdocs.yml"), "-d", str(site)]
    return subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    built = build(ROOT, folder)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_the_site_is_built_strictly_with_a_page_for_every_file_in_docs(site):
    pages = {str(file.relative_to(ROOT).with_suffix(".html")) for file in (ROOT / "docs").rglob("*.md") if file.name != "README.md"}
    assert pages - {str(file.relative_to(site)) for file in site.rglob("*.html")} == set()


def test_no_page_loads_anything_from_elsewhere(site):
    loading = {file.name: found[0] for file in site.rglob("*.html") if (found := LOADED.search(file.read_text()))}
    assert loading == {}


def test_every_file_that_a_page_loads_is_in_the_site(site):
    missing = {
        f"{page.relative_to(site)}: {link}"
        for page in site.rglob("*.html")
        for link in OWN_FILE.findall(page.read_text())
        if page.name != "404.html" and not (page.parent / link.partition("#")[0].partition("?")[0]).exists()
    }
    assert missing == set()


@pytest.mark.parametrize("link", ["no-such-page.md", "statistics.md#no-such-heading"])
def test_a_link_that_leads_nowhere_stops_the_build(tmp_path, link):
    root = tmp_path / "copy"
    (root / "docs").mkdir(parents=True)
    for name in ("mkdocs.yml", "statistics.md"):
        shutil.copy(ROOT / "docs" / name, root / "docs" / name)
    (root / "docs" / "statistics.md").write_text("# Statistics\n")
    (root / "README.md").write_text(f"# kdzoo\n\n[somewhere](docs/{link})\n")
    config = root / "docs" / "mkdocs.yml"
    config.write_text(re.sub(r"^nav:\n(?:[ -].*\n)+", "", config.read_text(), flags=re.M))
    built = build(root, tmp_path / "site")
    assert built.returncode == 1
    assert link.partition("#")[0] in built.stdout + built.stderr


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == VERSION
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


@pytest.mark.parametrize("file", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda file: file.name)
def test_the_files_of_the_repository_are_yaml_and_every_field_of_a_form_has_a_label(file):
    content = yaml.safe_load(file.read_text())
    ids = [field["id"] for field in content.get("body", ())]
    assert len(ids) == len(set(ids))
    assert all(field["attributes"]["label"] for field in content.get("body", ()))


def test_ci_is_the_script_that_the_repository_has():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    runs = [step["run"] for step in workflow["jobs"]["all"]["steps"] if "run" in step]
    assert runs == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
