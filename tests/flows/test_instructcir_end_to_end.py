"""InstructCIR with a network that was never trained, from pictures to ledger, report and sweep."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from embedded_world.benchmarks import WorldSize, write_world
from flows.profiles import resolve_profile
from tasks import networks
from tasks.query_sets import BenchmarkRef
from tasks.scoring.ledger import read_ledger
from tasks.settings import Profile
from tests.fakes.drawn import small_settings

if TYPE_CHECKING:
    from flows.score_benchmark import Outcome

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

METHODS = ("image-only", "instructcir", "instructcir-ema", "cvsi", "cvsi-instructcir")
TRAINED = {"instructcir", "instructcir-ema", "cvsi-instructcir"}
SIZE = WorldSize(subsets=2, circo_queries=5, fashion_queries=1, distractors=8)
LABEL = "not zero-shot: annotated texts of CIRR were among its training data"


@dataclass(frozen=True)
class Ran:
    """Two runs of one evaluation, the second without the means to load a network; and a sweep."""

    profile: Profile
    first: Outcome
    second: Outcome
    hidden: Outcome
    sweep: dict[str, object]
    figure: dict[str, object]
    page: str


@pytest.fixture(scope="module")
def ran(prefect_api: None, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Everything that the tests look at, made once."""
    from prefect import flow
    from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

    from flows.score_benchmark import evaluate
    from flows.sweep_fusion import sweep_fusion
    from models.instructcir import checkpoint
    from tests.fakes.networks import write_network

    out = tmp_path_factory.mktemp("instructcir")
    record = {"zero_shot": True, "triplets": {"rewriter": {"saw_benchmark_texts": ["CIRR"]}}}
    network = write_network(out / "network", record)
    settings = small_settings(out / "tables", captions=2, shard=128)
    settings["instructcir.checkpoint"] = str(network)
    profile = resolve_profile("tiny", settings)
    roots = write_world(out / "world", SIZE, seed=71)

    @flow
    def run(split: str, methods: list[str], folder: Path) -> Outcome:
        ref = BenchmarkRef(name="circo", root=str(roots["circo"]), split=split)
        return evaluate(profile, [ref], methods, folder, "a small world")

    def refused(folder: object) -> None:
        raise AssertionError("a finished run read weights")

    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: out / "prefect-results"}):
        first = run("val", list(METHODS), out / "report")
        with pytest.MonkeyPatch.context() as patch:
            networks._loaded.cache_clear()
            patch.setattr(checkpoint, "load_network", refused)
            second = run("val", list(METHODS), out / "again")
            sweep = sweep_fusion(
                "circo", str(roots["circo"]), step=0.5, settings=settings,
                out=str(out / "sweep"), method="cvsi-instructcir",
            )  # fmt: skip
            figure = sweep_fusion(
                "circo", str(roots["circo"]), step=0.5, settings=settings, out=str(out / "sweep")
            )
        hidden = run("test", ["instructcir"], out / "hidden")
    return Ran(profile, first, second, hidden, sweep, figure, first.report.read_text())


def test_every_method_is_scored(ran: Ran) -> None:
    scores = ran.first.as_json()["scores"]["circo-val"]
    assert set(scores) == set(METHODS)
    assert scores["image-only"] != scores["instructcir"] != scores["instructcir-ema"]
    for stage in ran.first.benchmarks[0].rankings:
        assert stage.table().rows_by_status() == {"ok": 5}


def test_the_second_run_makes_nothing_and_loads_no_network(ran: Ran) -> None:
    assert [stage.title for stage in ran.second.log.stages if stage.made] == []
    assert ran.first.as_json()["scores"] == ran.second.as_json()["scores"]


def test_what_the_rewriter_saw_is_said_in_ledger_and_report(ran: Ran) -> None:
    entries = read_ledger(ran.profile.root)
    assert len(entries) == len(METHODS)
    for entry in entries:
        assert entry["zero_shot"] == (entry["method"] not in TRAINED)
        assert entry["backbone"].endswith("+ reformulation") == (entry["method"] in TRAINED)
    for title in ("InstructCIR", "CVSI + InstructCIR", "InstructCIR (EMA queries)"):
        assert f">{title} (not zero-shot)<" in ran.page
    assert ran.page.count(LABEL) == len(TRAINED)
    assert "CVSI (not zero-shot)" not in ran.page


def test_the_papers_numbers_stand_beside_ours(ran: Ran) -> None:
    assert "InstructCIR Table III, ViT-L/14, test" in ran.page
    assert ">13.84<" in ran.page  # its mAP@10


def test_the_sweep_tries_every_weight_from_cached_features(ran: Ran) -> None:
    assert ran.sweep["tried"] == 3
    assert not any(stage["made"] for stage in ran.sweep["stages"])  # type: ignore[attr-defined]
    rows = json.loads(Path(str(ran.sweep["all"])).read_text())
    scores = ran.first.as_json()["scores"]["circo-val"]
    by_weight = {row["weight"]: row["map@10"] for row in rows}
    for weight, method in ((0.0, "cvsi"), (0.5, "cvsi-instructcir"), (1.0, "instructcir")):
        assert by_weight[weight] == pytest.approx(scores[method]["map@10"], abs=1e-3)


def test_the_sweep_of_cvsi_is_drawn_and_makes_no_caption_of_two(ran: Ran) -> None:
    assert ran.figure["tried"] == 6 * 3 + 6 + 3 + 1  # the profile's own weights are off the grid
    made = {stage["title"]: stage["made"] for stage in ran.figure["stages"]}  # type: ignore[attr-defined]
    assert made["captions of circo-val gallery"] == 0
    rows = json.loads(Path(str(ran.figure["all"])).read_text())
    own = ran.profile.cvsi.weights_for("circo").model_dump()
    (score,) = [row["map@10"] for row in rows if own.items() <= row.items()]
    scores = ran.first.as_json()["scores"]["circo-val"]
    assert score == pytest.approx(scores["cvsi"]["map@10"], abs=1e-3)
    captions = ran.figure["target_captions"]
    assert captions == {"1": captions["1"], "2": score}  # type: ignore[index]
    page = Path(str(ran.figure["page"]))
    assert page.read_text().count("<svg") == 3
    names = {file.name for file in page.parent.glob("circo-val-*.svg")}
    assert names == {f"circo-val-{part}.svg" for part in ("weights", "gamma", "targets")}


def test_a_hidden_split_yields_a_submission(ran: Ran) -> None:
    (file,) = ran.hidden.submissions
    assert file.name == "circo_test.json"
    assert len(json.loads(file.read_text())) == len(ran.hidden.benchmarks[0].ref.load().queries)
