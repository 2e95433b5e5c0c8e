"""An evaluation in other words as a flow: ledger, JSON, and nothing asked again."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.profiles import resolve_profile
from tasks.query_sets import BenchmarkRef
from tests.fakes.benchmark_layouts import CIRR_NAMES, write_cirr
from tests.fakes.drawn import draw_folder, small_settings
from tests.fakes.openai_server import MODEL, FakeOpenAIServer, chat

pytestmark = [pytest.mark.prefect, pytest.mark.slow]


def test_each_wording_is_scored_and_a_second_run_asks_nothing(
    prefect_api: None, tmp_path: Path
) -> None:
    from prefect import flow
    from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

    from flows.score_benchmark import Outcome, evaluate
    from tasks.scoring.ledger import read_ledger

    folder = write_cirr(tmp_path / "cirr")
    for name, picture in zip(CIRR_NAMES, draw_folder(folder / "dev", 8, seed=5), strict=True):
        picture.rename(picture.with_name(f"{name}.png"))
    ref = BenchmarkRef(name="cirr", root=str(folder), split="val")
    other = iter("abcdefghij")
    with (
        FakeOpenAIServer(then=lambda request: chat(f"say {next(other)} it")) as server,
        temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "prefect-results"}),
    ):
        own = {"engine": "openai", "model": MODEL, "base_url": server.base_url}
        settings = {f"generator.{name}": value for name, value in own.items()}
        profile = resolve_profile("tiny", small_settings(tmp_path / "tables") | settings)

        @flow
        def twice() -> tuple[Outcome, int, Outcome]:
            methods = ["image-only", "text-only"]
            first = evaluate(profile, [ref], methods, tmp_path / "one", "t", paraphrases=2)
            asked = len(server.requests)
            second = evaluate(profile, [ref], methods, tmp_path / "two", "t", paraphrases=2)
            return first, asked, second

        first, asked, second = twice()
    assert (asked, len(server.requests)) == (4, 4)
    said = first.as_json()["paraphrases"]["cirr-val"]
    assert said["count"] == 2
    # The image alone hears no words.
    assert said["methods"]["image-only"]["range"] == 0.0
    assert said["methods"]["text-only"]["queries"] == 2
    assert second.as_json()["paraphrases"] == first.as_json()["paraphrases"]
    texts = [entry["made"]["texts"] for entry in read_ledger(profile.root)]
    assert len(texts) == 6
    assert sum(text == "annotated" for text in texts) == 2
    for number in (1, 2):
        assert sum(text.endswith(f"prompt paraphrase, wording {number}") for text in texts) == 2
    assert "Other words" in first.report.read_text("utf-8")
