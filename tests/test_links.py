"""The pages: each link leads to a file and a heading that are there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.test_house import ROOMS, modules


def heading_names(page: Path) -> set[str]:
    """The names that links give to a page's headings."""
    lines = re.sub(r"(?ms)^```.*?^```", "", page.read_text("utf-8")).splitlines()
    heads = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_link_leads_somewhere(repository: Path) -> None:
    pages = [*repository.glob("*.md"), *(repository / "docs").glob("*.md")]
    pages += [page for room in ROOMS for page in (repository / room).rglob("README.md")]
    links = [
        (page, path, name)
        for page in pages
        for path, name in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)]*)\)", page.read_text())
    ]
    assert len(links) > 100
    for page, path, name in links:
        target = page.parent / path if path else page
        where = f"{page.relative_to(repository)}: {path}#{name}"
        assert target.exists(), where
        assert not name or name in heading_names(target), where


def test_pages_that_modules_name_are_there(repository: Path) -> None:
    named = {
        (path, page)
        for path in modules(repository, *ROOMS)
        for page in re.findall(r"docs/[\w-]+\.md", path.read_text("utf-8"))
    }
    assert named
    for path, page in named:
        assert (repository / page).exists(), f"{path.relative_to(repository)} names {page}"
