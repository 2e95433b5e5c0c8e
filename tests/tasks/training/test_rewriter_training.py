"""The rewriter's adapter as a job: its data, its folder, and SIGKILL at random moments."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from models.generators.adapter_card import read_card
from models.generators.transformers import TransformersSettings
from models.instructcir.rewriter_examples import ExampleSource
from models.instructcir.rewriter_settings import Example
from models.prompts.library import load_prompt
from tasks.training.rewriter_pairs import read_pairs
from tasks.training.spent import training_hours
from tests.fakes.checkpoints import save_llama
from tests.fakes.rewriter_runs import STEPS, job_of

PROMPT = load_prompt("instructcir_difference", ("caption_a", "caption_b"))
ROWS = [{"prompt": f"make w{i} blue :", "answer": f"w{i} w{i + 1}"} for i in range(8)]
PUBLISHED = [
    *("README.md", "adapter_config.json", "adapter_model.safetensors"),
    *("cirflow.json", "cost.json", "losses.csv"),
]


def write_rows(path: Path, rows: list[dict[str, object]]) -> str:
    if path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_llama(tmp_path_factory.mktemp("llama")))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_rows(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", ROWS)


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.parquet"])
def test_captions_are_put_into_the_prompt_and_bad_texts_left_out(tmp_path: Path, name: str) -> None:
    def row(text: str | None, benchmark: str = "") -> dict[str, object]:
        return {"caption_a": "A\nred {caption_b}", "caption_b": "B", "text": text} | {
            "benchmark": benchmark
        }

    source = write_rows(
        tmp_path / name,
        [row('Difference: "make it blue"', "cirr"), row("one " * 13), row("50% off"), row(None)],
    )
    found = read_pairs(source, PROMPT)
    text = PROMPT.template.replace("{caption_b}", "B").replace("{caption_a}", "A red {caption_b}")
    assert found.pairs == (Example(text, "make it blue"),)
    assert found.left_out == {"too long": 1, "special characters": 1, "no text": 1}
    assert found.benchmarks == ("cirr",)


def test_whole_prompts_are_taken_as_they_are(pairs: str) -> None:
    found = read_pairs(pairs, PROMPT, "replay")
    assert found.pairs == tuple(Example(str(r["prompt"]), str(r["answer"])) for r in ROWS)
    assert (found.name, found.left_out, found.benchmarks) == ("replay", {}, ())


def test_unusable_files_are_named(tmp_path: Path) -> None:
    from tasks.training.rewriter import TuningData

    with pytest.raises(ValueError, match=r"needs the columns .* it has text"):
        read_pairs(write_rows(tmp_path / "few.jsonl", [{"text": "red"}]), PROMPT)
    with pytest.raises(ValueError, match="cannot be read as Parquet or JSON lines"):
        read_pairs(str(tmp_path / "absent.jsonl"), PROMPT)
    with pytest.raises(ValueError, match=r"no usable pair .*'file': {'no text': 3}"):
        TuningData([ExampleSource("file", (), {"no text": 3})])


def test_sources_follow_each_other_and_benchmarks_are_remembered() -> None:
    from tasks.training.rewriter import TuningData

    one, two = Example("p :", "a"), Example("q :", "b")
    data = TuningData(
        [
            ExampleSource("fashioniq train", (one,), benchmarks=("fashioniq",)),
            ExampleSource("cirr train", (two, one), benchmarks=("cirr",)),
        ]
    )
    assert data.pairs == (one, two, one)
    assert data.counts == {"fashioniq train": 1, "cirr train": 2}
    assert data.benchmarks == ("cirr", "fashioniq")
    assert data.sha256 != TuningData([ExampleSource("x", (two, one, one))]).sha256


@pytest.fixture(scope="module")
def published(base: str, pairs: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run."""
    from tasks.training.rewriter import tune_rewriter

    job, data = job_of(str(tmp_path_factory.mktemp("root")), base, pairs)
    result = tune_rewriter.fn(job, data)
    assert result["steps"] == STEPS
    assert result["last_loss"] < 0.5 * result["first_loss"]
    return Path(result["adapter"])


def test_the_folder_is_whole_and_a_rerun_does_nothing(
    base: str, pairs: str, published: Path
) -> None:
    from tasks.training.rewriter import tune_rewriter

    assert sorted(path.name for path in published.iterdir()) == PUBLISHED
    assert [path.name for path in published.parent.iterdir()] == [published.name]  # no state
    assert 0 < (training_hours(str(published)) or 0) < 1
    before = {path.name: path.stat().st_mtime_ns for path in published.iterdir()}
    job, data = job_of(str(published.parents[2]), base, pairs)
    assert job.is_published
    tune_rewriter.fn(job, data)
    assert {path.name: path.stat().st_mtime_ns for path in published.iterdir()} == before
    card = read_card(published)
    assert card is not None
    assert card.as_json() == job.card.as_json()
    assert base not in "".join(
        (published / name).read_text() for name in PUBLISHED if not name.endswith("tensors")
    )


def test_what_changes_the_weights_changes_the_folder(base: str, pairs: str, tmp_path: Path) -> None:
    job, _ = job_of(str(tmp_path), base, pairs)
    other_base = job.base.changed(model=str(save_llama(tmp_path / "other", seed=1)))
    changed = [
        replace(job, config=job.config.changed(rank=5)),
        replace(job, data_sha256="0"),
        replace(job, benchmarks=("cirr",)),
        replace(job, base=job.base.changed(dtype="bf16")),
        replace(job, base=other_base),
    ]
    assert len({job.folder, *(other.folder for other in changed)}) == 6
    moved = replace(job, root="elsewhere", base=job.base.changed(device="auto"))
    assert moved.folder == job.folder  # neither place nor device is identity


def test_the_label_of_benchmark_texts_reaches_those_who_read_the_folder(
    base: str, pairs: str, tmp_path: Path
) -> None:
    from tasks.training.rewriter import export_merged, tune_rewriter

    job, data = job_of(str(tmp_path), base, pairs)
    job = replace(job, benchmarks=("cirr",), config=job.config.changed(epochs=1))
    adapter = tune_rewriter.fn(job, data)["adapter"]
    assert "**Not zero-shot**: annotated texts of cirr" in Path(adapter, "README.md").read_text()
    merged = export_merged.fn(job, str(tmp_path / "merged"))
    for settings in (
        TransformersSettings(model=base, adapter=adapter, device="cpu"),
        TransformersSettings(model=merged, device="cpu"),
    ):
        assert settings.fingerprint["saw_benchmark_texts"] == ["cirr"]


def test_a_merged_folder_is_written_once_and_never_over_another(
    base: str, pairs: str, published: Path, tmp_path: Path
) -> None:
    from tasks.training.rewriter import export_merged

    job, _ = job_of(str(published.parents[2]), base, pairs)
    merged = Path(export_merged.fn(job, str(tmp_path / "merged")))
    written = (merged / "model.safetensors").stat().st_mtime_ns
    assert export_merged.fn(job, str(merged)) == str(merged)
    assert (merged / "model.safetensors").stat().st_mtime_ns == written
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
    with pytest.raises(ValueError, match="holds something else"):
        export_merged.fn(replace(job, data_sha256="0"), str(merged))
    with pytest.raises(ValueError, match="holds something else"):
        export_merged.fn(job, base)


@contextmanager
def forking(base: str, pairs: str, repository: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.rewriter_runs", base, pairs],
        cwd=repository,
        env=os.environ | {"PREFECT_LOGGING_LEVEL": "CRITICAL"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()
        assert process.wait(300) == 0


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_ends_bit_for_bit_alike(
    base: str, pairs: str, published: Path, repository: Path, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # shown when the test fails
    chance = random.Random(seed)
    job, _ = job_of(str(tmp_path), base, pairs)
    state = tmp_path / f"{job.folder}.state.pt"
    with forking(base, pairs, repository) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        killed = 0
        while True:
            process.stdin.write(f"{tmp_path}\n")
            process.stdin.flush()
            child = int(process.stdout.readline())
            if killed < 6:
                _wait_for_saves(state, chance.choice((0, 1, 2, 5)))
                time.sleep(chance.uniform(0.0, 0.1))
                os.kill(child, signal.SIGKILL)
            status = int(process.stdout.readline())
            if status == 0:
                break
            assert status == -signal.SIGKILL
            killed += 1
    assert killed == 6
    folder = tmp_path / job.folder
    for name in set(PUBLISHED) - {"cost.json"}:
        assert (folder / name).read_bytes() == (published / name).read_bytes()


def _wait_for_saves(state: Path, count: int) -> None:
    """Wait until the state was written a number of times; with 0, not at all."""
    deadline, last = time.monotonic() + 300, _stamp(state)
    while count:
        assert time.monotonic() < deadline, "the run saves no state"
        time.sleep(0.002)
        if (stamp := _stamp(state)) != last:
            last, count = stamp, count - 1


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0
