"""What a stranger finds at the door: how to cite, report and contribute, hosted CI, and the index of the docs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cooperbench_assets.commands import tables_page
from cooperbench_assets_tests.projects import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

FORMS = sorted((CHECKOUT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PAGES = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md"), *CHECKOUT.glob("data/*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
MAKE = shutil.which("make")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def pyproject() -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    return content


def versions() -> list[str]:
    """The versions of Python that the package says it supports."""
    named = (line.rpartition(" :: ")[2] for line in pyproject()["classifiers"] if "Python ::" in line)
    return [version for version in named if version.startswith("3.")]


def test_the_citation_has_what_its_format_requires_and_the_packages_version_and_licence() -> None:
    citation = load(CHECKOUT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["message"]
    project = pyproject()
    assert (citation["title"], citation["version"], citation["license"]) == (
        project["name"],
        project["version"],
        project["license"],
    )
    assert citation["authors"] == [{"name": "The cooperbench-assets maintainers"}]
    known = {"abstract", "authors", "cff-version", "keywords", "license", "message", "references", "title", "type"}
    assert citation.keys() <= {*known, "version"}, "a key that the format does not have makes the whole file invalid"
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= reference.keys()
        assert all(author.keys() == {"family-names", "given-names"} for author in reference["authors"])


def test_hosted_ci_runs_the_projects_own_ci_on_every_version_that_is_supported() -> None:
    workflow = load(CHECKOUT / ".github" / "workflows" / "ci.yml")
    (job,) = workflow["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == versions()
    (step,) = [step for step in job["steps"] if ".ci/run" in step.get("run", "")]
    assert step["env"]["PYTHON"] == "${{ steps.python.outputs.python-path }}"
    (setup,) = [step for step in job["steps"] if step.get("id") == "python"]
    assert setup["with"]["python-version"] == "${{ matrix.python }}"
    assert os.access(CHECKOUT / ".ci" / "run", os.X_OK)
    assert workflow["permissions"] == {"contents": "read"}


@pytest.mark.skipif(MAKE is None, reason="needs make")
def test_a_python_that_is_named_is_used_or_refused_and_no_other_is_taken_in_its_place(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "harness.lock"):
        shutil.copy(CHECKOUT / name, tmp_path)
    refused = subprocess.run(
        ["make", ".venv", "PYTHON=false"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0
    assert "PYTHON=false is no Python 3.11, 3.12 or 3.13 with venv and ensurepip" in refused.stderr
    assert not (tmp_path / ".venv").exists()
    said = subprocess.run(
        ["make", "--dry-run", ".venv"],
        cwd=tmp_path,
        # Without what another make, which was called with PYTHON=…, leaves to those below it.
        env={**{name: value for name, value in os.environ.items() if "MAKE" not in name}, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"for python in {sys.executable}; do" in said.stdout


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_an_issue_form_is_one_that_github_shows(form: Path) -> None:
    content = load(form)
    if form.stem == "config":
        assert content.keys() <= {"blank_issues_enabled", "contact_links"}
        return
    assert {"name", "description", "body"} <= content.keys() <= {"name", "description", "labels", "body", "title"}
    asked = [part for part in content["body"] if part["type"] != "markdown"]
    assert asked
    assert {part["type"] for part in asked} <= {"textarea", "input", "dropdown", "checkboxes"}
    ids = [part["id"] for part in asked]
    assert len(set(ids)) == len(ids)
    assert all(part["attributes"]["label"] for part in asked)
    assert len({part["attributes"]["label"] for part in asked}) == len(asked)


def test_a_bug_report_asks_for_what_doctor_says() -> None:
    (asked,) = [part for part in load(FORMS[0])["body"] if part.get("id") == "doctor"]
    assert "cooperbench-assets doctor" in asked["attributes"]["label"]
    assert asked["validations"]["required"] is True


def test_the_index_of_the_docs_has_a_line_for_every_page() -> None:
    index = (CHECKOUT / "docs" / "README.md").read_text()
    for page in CHECKOUT.glob("docs/*.md"):
        if page.name != "README.md":
            assert re.search(rf"^\| \[[^\]]+\]\({re.escape(page.name)}\) \| .+ \|$", index, re.MULTILINE), page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    headings = {re.sub(r"[^\w\- ]", "", line.lstrip("# ")).lower().replace(" ", "-") for line in text.splitlines()}
    for link in LINK.findall(text):
        if link.startswith("#"):
            assert link[1:] in headings, link
        elif not link.startswith(("https://", "http://")):
            assert (page.parent / link.partition("#")[0]).exists(), link


def mapped() -> set[str]:
    """What CONTRIBUTING's map of the package names: folders with their slash, and modules."""
    text = (CHECKOUT / "CONTRIBUTING.md").read_text()
    _, _, rest = text.partition("    cooperbench_assets/\n")
    paths: set[str] = set()
    above: list[str] = []
    for line in rest.partition("\nImports go one way")[0].splitlines():
        if line.strip():
            depth, name = (len(line) - len(line.lstrip()) - 6) // 2, line.split()[0]
            above = [*above[:depth], name]
            paths.add("".join(above))
    return paths


def test_the_map_names_every_room_and_every_module_outside_of_one() -> None:
    package = CHECKOUT / "cooperbench_assets"
    folders = {
        f"{folder.relative_to(package)}/"
        for folder in package.rglob("*")
        if folder.is_dir() and folder.name != "__pycache__" and not {"defs", "libraries"} & {*folder.parent.parts}
    }
    modules = {file.name for file in package.glob("*.py") if file.name != "__init__.py"}
    assert mapped() == folders | modules


def test_the_way_of_a_pair_names_files_classes_and_assets_that_are_there() -> None:
    text = (CHECKOUT / "CONTRIBUTING.md").read_text()
    _, _, way = text.partition("## One pair, from the command line to its row")
    way = way.partition("\n## ")[0]
    package = CHECKOUT / "cooperbench_assets"
    files = [name for name in re.findall(r"`([\w/]+\.py)`", way) if not (package / name).is_file()]
    assert [name for name in files if not (package / "execution" / name).is_file()] == []
    sources = "".join(file.read_text() for file in package.rglob("*.py"))
    for name in ("CellJob", "run_agents", "Launch", "Loop"):
        assert f"`{name}`" in way, name
        assert re.search(rf"^(?:class|def) {name}\b", sources, re.MULTILINE), name
    for asset in ("run_logs", "eval_outputs", "pair_results", "results_store"):
        assert f"`{asset}`" in way, asset
        assert f'"{asset}"' in sources, asset


def test_security_says_what_is_promised_what_is_not_and_how_to_report() -> None:
    text = (CHECKOUT / "SECURITY.md").read_text()
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["What is promised", "What is not", "Versions", "Reporting"]
    assert "private vulnerability reporting" in " ".join(text.split())
    assert "@" not in text, "no address that nobody reads"


def test_the_page_of_tables_is_that_of_a_fresh_store() -> None:
    assert tables_page.PAGE.read_text() == tables_page.page(), "run: python -m cooperbench_assets.commands.tables_page"


def test_every_table_view_and_column_on_that_page_has_a_meaning() -> None:
    own = {"published", "schema_migrations", "store_info"}
    for one in tables_page.relations().values():
        assert one.comment, one.name
        if one.name not in own:
            assert all(meaning for _, _, meaning in one.columns), one.name


def test_a_deployment_gives_its_daemon_what_runs_are_given_and_is_reached_over_loopback_alone() -> None:
    compose, instance = (load(CHECKOUT / "deploy" / name) for name in ("compose.yaml", "dagster.yaml"))
    services = compose["services"]
    assert set(instance["run_launcher"]["config"]["env_vars"]) <= services["daemon"]["environment"].keys()
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    example = (CHECKOUT / "deploy" / ".env.example").read_text()
    asked = set(re.findall(r"\$\{(\w+)(?::\?[^}]*)?\}", (CHECKOUT / "deploy" / "compose.yaml").read_text()))
    assert asked == {"PROJECT", "POSTGRES_PASSWORD", "REDIS_PASSWORD"}
    assert asked <= set(re.findall(r"^(\w+)=", example, re.MULTILINE))
