"""Addresses of the service, for pages elsewhere: Prefect's artifacts link reports and queries."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from tasks.explorer.address import SERVICE_VARIABLE
from tasks.explorer.evaluations import folder_key
from tasks.report.artifact import file_link
from tasks.report.markdown import Markdown, plain


def report_link(report: Path) -> Markdown:
    """Words that lead to a report: over http where the service's address is set, else its file."""
    address = os.environ.get(SERVICE_VARIABLE, "").rstrip("/")
    if not address:
        return file_link(report)
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        said = f"{SERVICE_VARIABLE} is not a web address (http://NAME:PORT), so this is a file. "
        return Markdown(f"{plain(said)}{file_link(report)}")
    place = f"{address}/reports/{folder_key(report.parent)}/{report.name}"
    return Markdown(
        f"[Full report]({place}) and [every query]({address}/benchmarks), while `cirflow serve` "
        f"runs; the file: {plain(report)}"
    )
