"""A paper's tables and figures: what is missing is made, then all is shown next to the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from prefect import flow
from prefect.states import State

from flows.drawn_training import train_comparison_systems
from flows.evaluate_world import demo_world
from flows.forms import BenchmarkChoice
from flows.requests import paper as requests
from flows.requests.paper import PaperRequest
from flows.requests.prepared import prepared_by
from flows.requests.rerun_backbones import RerunRequest
from flows.running import RunLog, run_stages
from flows.score_benchmark import Scored, rank_and_score
from flows.summaries import summed_up
from flows.train_mapping import train_mapping_for
from models.retrieval.paper_tables import PAPER_TABLES, PAPER_TITLES
from tasks.artifact_keys import artifact_key
from tasks.artifacts import publish_markdown, stages_markdown
from tasks.backbone_names import folders_of, recognised_name
from tasks.query_sets import is_embedded_world
from tasks.redacted import redacting
from tasks.report import text
from tasks.report.markdown import markdown_table, plain
from tasks.report.paper_figures import SWEPT, cvsi_figures, instructcir_figures
from tasks.report.paper_files import Figure, Page, write_paper
from tasks.report.papers import Entry, FilledTable, filled, paper_costs
from tasks.scoring.costs import recorded_costs
from tasks.scoring.figure_four import FigureFour, plan_figure, read_figure
from tasks.scoring.ledger import read_ledger


@dataclass(frozen=True)
class Made:
    """An evaluation for the tables.

    Attributes:
        asked: Backbone, benchmarks and methods.
        name: Name of the backbone in tables.
        scored: Rankings and scores.
    """

    asked: RerunRequest
    name: str
    scored: Scored


@flow(name="paper", flow_run_name="paper {paper}", persist_result=False, result_serializer="json")
@redacting
@prepared_by(requests.paper)
def paper(asked: PaperRequest) -> State[Any]:
    """Make what is missing, then fill every table and figure."""
    if asked.trained and asked.demo is not None:
        networks = train_comparison_systems(
            asked.demo / "systems", asked.profile_name, asked.changes, asked.trained
        )
        asked = asked.with_networks(networks)
    made = [_made(each) for each in _evaluations(asked)]
    folders = folders_of(asked.profile.query_encoder)
    entries = read_ledger(asked.profile.root, folders)
    left_out = {each.name: dict(each.asked.left_out) for each in made}
    costs = paper_costs(recorded_costs(entries) | _costs(made))
    tables = tuple(filled(t, entries, costs, left_out) for t in PAPER_TABLES[asked.paper])
    log = RunLog()
    page = Page(
        paper=asked.paper,
        title=PAPER_TITLES[asked.paper],
        tables=tables,
        figures=_labelled(_figures(asked, entries, made, log), made),
        embedded=any(entry["world"] == "embedded" for entry in entries),
        created=text.now(),
    )
    files = write_paper(page, asked.out)
    logs = [*(each.scored.log for each in made), log]
    stages = [stage.as_json() for each in logs for stage in each.stages]
    path = (asked.out / "page.html").resolve()
    publish_markdown(
        artifact_key("paper", asked.paper),
        f"## {plain(page.title)}\n\n{_summary(tables)}\n\n"
        f"[{path.name}]({path.as_uri()}), {plain(path)}\n\n{stages_markdown(stages)}",
        page.title,
    )
    result = {
        "stages": stages,
        "left out": {name: own for name, own in left_out.items() if own},
        "submissions": [str(file) for each in made for file in each.scored.submissions],
        "files": [str(file) for file in files],
        "page": str(path),
    }
    return summed_up(result)


def _figures(
    asked: PaperRequest, entries: Sequence[Entry], made: Sequence[Made], log: RunLog
) -> tuple[Figure, ...]:
    """The paper's figures that show results."""
    rankings = [r for each in made for item in each.scored.benchmarks for r in item.rankings]
    if asked.paper == "cvsi":
        swept = _swept(made[0], asked.target_captions, log) if made else {}
        return cvsi_figures(swept, rankings)
    return instructcir_figures(entries, rankings)


def _labelled(figures: Sequence[Figure], made: Sequence[Made]) -> tuple[Figure, ...]:
    """Figures whose charts and pictures come from drawn benchmarks say so in their titles."""
    drawn = any(is_embedded_world(ref.root) for each in made for ref in each.asked.refs)
    label = ", embedded world" if drawn else ""
    return tuple(replace(figure, title=f"{figure.title}{label}") for figure in figures)


def _swept(made: Made, target_captions: int, log: RunLog) -> dict[str, FigureFour]:
    """Figure 4 of CVSI on the first backbone: sweeps over weights, from cached features."""
    found = {}
    profile = made.asked.profile
    for item in made.scored.benchmarks:
        if "cvsi" in item.scores and item.ref.name in SWEPT:
            most = target_captions if item.ref.name == SWEPT[0] else 0
            plan = plan_figure(profile, item.ref, targets=most)
            run_stages(plan.stages, log, profile.allow_gaps)
            found[item.ref.name] = read_figure(plan)
    return found


def _evaluations(asked: PaperRequest) -> Sequence[RerunRequest]:
    """What is scored first; nothing if no benchmark is available."""
    if asked.benchmarks:
        return asked.evaluations(asked.benchmarks)
    if asked.demo is None:
        return ()
    drawn = demo_world(asked.demo, asked.seed)
    return asked.evaluations([BenchmarkChoice(name=n, folder=f) for n, f in drawn.items()])


def _made(asked: RerunRequest) -> Made:
    """Rank and score on one backbone; its mapping network is trained first where one is needed."""
    if asked.mapping is not None:
        trained = train_mapping_for(asked.profile, asked.mapping.captions, asked.mapping.steps)
        asked = asked.with_mapping(trained)
    name = recognised_name(asked.profile.query_encoder)
    return Made(asked, name, rank_and_score(asked.profile, asked.refs, asked.methods, asked.out))


def _costs(made: Sequence[Made]) -> dict[str, dict[str, Any]]:
    """What a query of each ranking costs as its tables say now: the ledger keeps what they said."""
    return {
        stage.spec_key: item.costs[stage.method].as_json()
        for each in made
        for item in each.scored.benchmarks
        for stage in item.rankings
    }


def _summary(tables: Sequence[FilledTable]) -> str:
    """How much of each table is there."""
    rows = []
    for each in tables:
        cells = [m for row in each.published for m in row.measured]
        here = sum(any(row.measured) for row in each.measured)
        rows.append(
            (f"Table {each.table.number}", each.table.title, len(cells), _count(cells), here)
        )
    columns = (
        "table",
        "what it shows",
        "published cells",
        "of them measured",
        "other rows measured",
    )
    return markdown_table(columns, rows)


def _count(cells: Sequence[object]) -> int:
    return sum(cell is not None for cell in cells)
