"""Reports of evaluations over http: the pages in folders that evaluations named, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse

from deployments.service.errors import Refusal
from deployments.service.pages import page
from deployments.service.state import Serving
from models.spelling import brief
from storage.benchmarks.registry import benchmark_facts
from tasks.explorer.evaluations import finished_evaluations, folder_key, report_folders
from tasks.scoring.ledger import read_ledger

router = APIRouter(include_in_schema=False)

FILES: Final = ("report.html", "page.html")
"""Pages that flows write into a report's folder; whatever else lies there is not served."""

POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox allow-scripts"
)
"""A report runs its own script and loads nothing. The sandbox gives it an origin of its own, from
which it can ask this service nothing; its own policy allows just its one script."""


@router.get("/reports")
def reports(request: Request, service: Serving) -> HTMLResponse:
    """Runs with their reports, and the ledger's rows."""
    runs: dict[str, list[object]] = {}
    for each in finished_evaluations(service.root):
        runs.setdefault(each.folder, []).append(each)
    return page(
        request,
        "reports.html",
        title="Reports",
        runs=[
            (folder_key(Path(folder)), folder, _files(Path(folder)), evaluations)
            for folder, evaluations in runs.items()
        ],
        ledger=[(row, _shown(row)) for row in reversed(read_ledger(service.root))],
    )


def _shown(row: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The main metric of a row of the ledger, and the benchmark's other columns."""
    facts = benchmark_facts(row["benchmark"])
    names = dict.fromkeys((facts.metrics.main, *facts.columns))
    return [(n, row["metrics"][n]["value"]) for n in names if n in row["metrics"]]


@router.get("/reports/{key}/{name}")
def report(service: Serving, key: str, name: str) -> FileResponse:
    """One file of a report."""
    folder = report_folders(service.root).get(key)
    if folder is None:
        raise Refusal(
            404, "unknown_report", f"no evaluation wrote a report {brief(key)!r}: see /reports"
        )
    files = _files(folder)
    if name not in files:
        known = ", ".join(files) or "none: the folder lies on the machine that made it"
        raise Refusal(
            404, "unknown_file", f"the report has no file {brief(name)!r}; it has {known}"
        )
    headers = {"content-security-policy": POLICY, "cache-control": "no-store"}
    return FileResponse(folder / name, media_type="text/html; charset=utf-8", headers=headers)


def _files(folder: Path) -> list[str]:
    """Names of a report's pages: regular files, no links."""
    found = (folder / name for name in FILES)
    return [path.name for path in found if path.is_file() and not path.is_symlink()]
