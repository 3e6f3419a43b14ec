"""Markdown pages are well-formed: width, links, pictures, policies."""

import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from pages import README, Page, every_page
from server import ROOT

WIDTH, README_LINES = 100, 175
CONTEXT_KEY = "kms:EncryptionContext:"
DIAGRAMS = r"(flowchart|graph) (TB|TD|BT|RL|LR)|sequenceDiagram|stateDiagram-v2"
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)")

PAGES = every_page()
each_page = pytest.mark.parametrize("page", PAGES, ids=str)


def test_the_pages_are_those_that_people_look_for():
    names = {str(page) for page in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"} <= names
    wanted = "architecture security functions settings errors operations onboarding envelope performance decisions"
    assert {f"docs/{name}.md" for name in wanted.split()} <= names


def test_the_readme_is_short():
    assert len(README.text.splitlines()) <= README_LINES


@each_page
def test_no_line_is_too_long(page):
    long = [f"{page}:{n}" for n, line in enumerate(page.text.splitlines(), 1) if len(line) > WIDTH]
    assert not long


@each_page
def test_code_blocks_are_closed(page):
    assert page.text.count("\n```") % 2 == 0


@each_page
def test_links_lead_somewhere(page):
    for path, anchor in LINK.findall(page.prose):
        target = (page.path.parent / path).resolve() if path else page.path
        assert target.exists(), f"{page}: {path}"
        if anchor:
            found = Page(target).anchors().count(anchor)
            assert found == 1, f"{page}: {path}#{anchor} is there {found} times"


@pytest.mark.parametrize("name", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_that_a_page_names_exist(name):
    [page] = [page for page in PAGES if str(page) == name]
    named = re.findall(r"`((?:src|crates|tests|sql|scripts|docs)/[\w./-]*)`", page.prose)
    assert len(named) > 3
    missing = {path for path in named if not (ROOT / path).exists() and not (ROOT / f"{path}.rs").exists()}
    assert not missing


def linked(page):
    paths = [(page.path.parent / path).resolve() for path, _ in LINK.findall(page.prose) if path]
    return {str(path.relative_to(ROOT)) for path in paths if path.is_relative_to(ROOT)}


def test_every_page_of_docs_is_linked_from_the_readme_and_those_in_folders_from_another_page():
    docs = {str(page): linked(page) for page in PAGES if str(page).startswith("docs/")}
    assert {page for page in docs if page.count("/") == 1} <= linked(README)
    others = set().union(*(links - {page} for page, links in docs.items()))
    assert {page for page in docs if page.count("/") > 1} <= others


@each_page
def test_pictures_are_well_formed(page):
    for image in re.findall(r"!\[[^\]]+\]\((?!https?:)([^)]+)\)", page.prose):
        root = ElementTree.parse(page.path.parent / image).getroot()
        assert root.tag.endswith("}svg") and root.get("viewBox"), image
    for _, diagram in page.blocks("mermaid"):
        assert re.fullmatch(DIAGRAMS, diagram.splitlines()[0].strip()), f"{page}: {diagram}"


def test_the_readme_has_a_picture():
    images = sorted((ROOT / "docs" / "images").glob("*"))
    assert images and all(f"docs/images/{image.name}" in README.text for image in images)


@each_page
def test_policies_are_json_and_name_the_context_that_is_sent(page):
    context = {"cmk_encrypt": "v1", "purpose": "values"}
    allowed = {**context, "purpose": ["values", "index"]}
    for _, block in page.blocks("json"):
        document = json.loads(block)
        for statement in document.get("Statement", [document]):
            conditions = statement.get("Condition", {}).get("StringEquals", {})
            asked = {k.removeprefix(CONTEXT_KEY): v for k, v in conditions.items() if k.startswith(CONTEXT_KEY)}
            assert not asked or asked in (allowed, {**allowed, "tenant": "globex"}), page
        sent = document.get("requestParameters", {}).get("encryptionContext")
        assert sent in (None, {**context, "tenant": "globex"}), page
