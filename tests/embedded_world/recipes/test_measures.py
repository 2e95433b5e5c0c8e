"""The form of all gates: shares, errors, kinds, and the records of the shipped models."""

import json
from pathlib import Path

import pytest

from embedded_world.recipes.measures import Gates, Measure, counted

SHIPPED = (
    *("clip", "clip_small", "blip2", "llava", "llama", "llama_pointing"),
    *("lincir", "instructcir"),
)


def test_shares_and_errors_by_hand() -> None:
    verdicts = [("add", True)] * 60 + [("move", True)] * 20 + [("move", False)] * 10
    measure = counted("llama", "edited", [*verdicts, *[(None, False)] * 10], 0.75)
    assert (measure.share, measure.n, measure.passed) == (0.8, 100, True)
    assert measure.error == pytest.approx(0.04)
    assert measure.kinds == {"add": (60, 60), "move": (20, 30)}
    assert Measure("clip", "R@1", 1.0, 100).error == pytest.approx(0.01)  # as if one were wrong


def test_a_missed_gate_shows_in_the_table_and_in_the_record() -> None:
    missed = Measure("clip", "R@1", 0.94, 1000, 0.95)
    open_ended = Measure("clip", "R@5", 0.5, 1000)
    assert "MISSED" in missed.line
    assert "ok" in Measure("clip", "R@1", 0.95, 1000, 0.95).line
    assert not Gates([open_ended, missed]).passed
    record = Gates([open_ended], {"throughput": 3}).as_json()
    assert record == {
        "passed": True,
        "measures": [{"name": "R@5", "share": 0.5, "n": 1000, "gate": None}],
        "throughput": 3,
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_all_records_have_one_form(repository: Path, name: str) -> None:
    folder = repository / "models" / "embedded" / name
    record = json.loads((folder / "recipe.json").read_text())
    assert record["command"].startswith("OMP_NUM_THREADS=1 python -m embedded_world.recipes.")
    assert record["command"].endswith(f"--out models/embedded/{name}")
    module = record["command"].split()[3]
    assert (repository / f"{module.replace('.', '/')}.py").is_file()
    assert min(record["steps"], record["cpu_seconds"]) > 0
    assert {"torch", "transformers", "tokenizers", "safetensors"} <= record["libraries"].keys()
    assert record["settings"]
    assert record["gates"]
    assert (folder / "README.md").is_file()
