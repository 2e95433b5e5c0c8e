"""The explorer: finished evaluations, and every query of one with its rank by each method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from deployments.service.errors import Refusal
from deployments.service.pages import page
from deployments.service.state import Serving
from models.retrieval.methods import title_of
from models.spelling import unknown
from storage.benchmarks.registry import benchmark_facts
from tasks.explorer.evaluations import Evaluation, finished_evaluations, folder_key
from tasks.explorer.ranks import Ranked, column, ranked_queries
from tasks.explorer.selection import (
    ORDERS,
    OUTCOMES,
    Selection,
    as_csv,
    chosen,
    compared,
    facets,
    histogram,
    recall,
    subset,
)
from tasks.explorer.strips import query_strips, query_texts
from tasks.report import text
from tasks.report.strips import pairs_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

router = APIRouter(include_in_schema=False)

PAGE: Final = 10
"""Queries of a page."""
TOP: Final = 6
"""Images shown of each answer."""
DEEP: Final = 20
"""Images shown of each answer on the page of one query."""


@router.get("/benchmarks")
def benchmarks(request: Request, service: Serving) -> HTMLResponse:
    """The finished evaluations."""
    found = finished_evaluations(service.root)
    return page(
        request,
        "benchmarks.html",
        title="Benchmarks",
        evaluations=[(each, _title(each), folder_key_of(each)) for each in found],
        title_of=title_of,
    )


@router.get("/benchmarks/{key}")
def benchmark(request: Request, service: Serving, key: str) -> HTMLResponse:
    """Queries of an evaluation, as the address selects them."""
    ranked = ranked_queries(service.root, key)
    selection = _selection(request, ranked)
    rows = chosen(ranked.frame, selection)
    alike = subset(ranked.frame, selection)
    pages = max(1, -(-rows.height // PAGE))
    selection = selection.changed(page=min(selection.page, pages))
    shown = rows["query"].to_list()[PAGE * (selection.page - 1) :][:PAGE]
    methods = [name for name in (selection.method, selection.against) if name]
    texts = query_texts(ranked, shown, selection.method)
    link = _linker(key, selection)
    return page(
        request,
        "explorer.html",
        title=_title(ranked.evaluation),
        evaluation=ranked.evaluation,
        report=folder_key_of(ranked.evaluation),
        methods=ranked.methods,
        title_of=title_of,
        selection=selection,
        depths=sorted({1, 5, 10, 50, *benchmark_facts(ranked.evaluation.benchmark).metrics.depths}),
        facets=facets(ranked.frame),
        orders=ORDERS,
        outcomes=_outcomes(alike, selection),
        bars=_bars(alike, selection, methods),
        recalls=[(name, recall(alike, name, selection.k)) for name in methods],
        strips=list(zip(query_strips(ranked, shown, methods, TOP), texts, strict=True)),
        found=rows.height,
        alike=alike.height,
        pages=pages,
        link=link,
        page_link=lambda number: link(page=number),
        csv=f"/benchmarks/{key}/queries.csv?{urlencode(_told(selection))}",
        pairs_of=pairs_of,
        compare=text.compare,
    )


@router.get("/benchmarks/{key}/queries.csv")
def queries_csv(request: Request, service: Serving, key: str) -> Response:
    """The selected queries with their ranks and scores by every method, all pages."""
    ranked = ranked_queries(service.root, key)
    rows = chosen(ranked.frame, _selection(request, ranked))
    name = f"{ranked.evaluation.benchmark}-{ranked.evaluation.split}-queries.csv"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(as_csv(rows), media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/benchmarks/{key}/query")
def one_query(request: Request, service: Serving, key: str, query: str) -> HTMLResponse:
    """One query by every method of its evaluation, with the texts of each."""
    ranked = ranked_queries(service.root, key)
    if query not in ranked.rows:
        said = unknown("query", query, list(ranked.rows)[:6], also=ranked.rows)
        raise Refusal(404, "unknown_query", said)
    (strip,) = query_strips(ranked, [query], ranked.methods, DEEP)
    texts = {name: query_texts(ranked, [query], name)[0] for name in ranked.methods}
    return page(
        request,
        "query.html",
        title=f"Query {query}",
        evaluation=ranked.evaluation,
        back=_title(ranked.evaluation),
        strip=strip,
        texts=texts,
        pairs_of=pairs_of,
        compare=text.compare,
        siblings=ranked.frame.filter(
            (ranked.frame["group"] == strip.group) & (ranked.frame["query"] != query)
        )["query"].to_list()
        if strip.group
        else [],
    )


def folder_key_of(evaluation: Evaluation) -> str:
    """The report of an evaluation in addresses."""
    from pathlib import Path

    return folder_key(Path(evaluation.folder))


def _title(evaluation: Evaluation) -> str:
    return f"{benchmark_facts(evaluation.benchmark).title}, {evaluation.split}"


def _selection(request: Request, ranked: Ranked) -> Selection:
    """What an address asks for, without empty fields and parameters of other programs.

    Raises:
        RequestValidationError: a value does not fit.
        ValueError: a method was not evaluated.
    """
    given = {n: v for n, v in request.query_params.items() if v and n in Selection.model_fields}
    try:
        selection = Selection.model_validate(given)
    except ValidationError as error:
        faults = [{**each, "loc": ("query", *each["loc"])} for each in error.errors()]
        raise RequestValidationError(faults) from error
    return selection.of_methods(ranked.methods)


def _told(selection: Selection) -> dict[str, Any]:
    return selection.model_dump(exclude_defaults=True)


def _linker(key: str, selection: Selection) -> Callable[..., str]:
    """Addresses of the same page with other values; a changed selection begins at page 1."""

    def link(**changes: Any) -> str:
        return f"/benchmarks/{key}?{urlencode(_told(selection.changed(**{'page': 1, **changes})))}"

    return link


def _outcomes(alike: pl.DataFrame, selection: Selection) -> list[tuple[str, str, int]]:
    """Outcome, its words and its number of queries; right and wrong where one method is shown."""
    first = title_of(selection.method)
    if not selection.against:
        right = alike.filter(alike[column("rank", selection.method)] <= selection.k).height
        return [
            ("right", f"{first} right", right),
            ("wrong", f"{first} wrong", alike.height - right),
        ]
    words = {"a": first, "b": title_of(selection.against)}
    counts = compared(alike, selection)
    return [(name, said.format(**words), counts[name]) for name, said in OUTCOMES.items()]


def _bars(
    alike: pl.DataFrame, selection: Selection, methods: list[str]
) -> list[tuple[str, int, int, list[int]]]:
    """Words, least and greatest rank of each step, and its queries by each method."""
    counted = [histogram(alike, name) for name in methods]
    return [
        (own[0].words, own[0].low, own[0].high, [step.queries for step in own])
        for own in zip(*counted, strict=True)
    ]
