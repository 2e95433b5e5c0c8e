"""What a training publishes, for whom, and what it leaves behind."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

from models.instructcir.settings import CombinerSettings, LossSettings
from storage.collections.decoding import decode_image
from tasks import progress
from tasks.networks import network_facts
from tasks.training.folder import (
    CHECKPOINT,
    HISTORY,
    SLOTS,
    TrainingFolder,
    TrainingHeld,
)
from tasks.training.triplet_sets import TripletSet, TripletSplit
from tests.fakes.triplet_tables import small_job, write_triplets

if TYPE_CHECKING:
    import torch

    from models.instructcir.network import ReformulationNetwork
    from tasks.training.reformulation_job import ReformulationJob
    from tasks.training.run_settings import RunSettings
    from tasks.training.shown_progress import ShownProgress

pytestmark = pytest.mark.usefixtures("one_thread")


def run_settings(**changes: Any) -> RunSettings:
    """Train on the CPU, without logs."""
    from tasks.training.run_settings import RunSettings

    return RunSettings(**{"accelerator": "cpu", "loggers": ()} | changes)


def short_job(root: Path, triplets: TripletSet, **changes: Any) -> ReformulationJob:
    """Two steps of eight triplets."""
    training = {"max_steps": 2, **changes.pop("training", {})}
    return small_job(str(root), triplets, training=training, **changes)


def first_stage(job: ReformulationJob) -> None:
    from models.instructcir.network import build_network
    from tasks.training.trainer import fit

    network = build_network(job.encoder, job.network, job.training.seed)
    fit(
        job,
        run_settings(),
        job.load_data(run_settings(), network),
        network,
        lambda step, total, loss: None,
    )


@pytest.mark.parametrize(("augmentation", "mode"), [("targetpad", "targetpad"), ("clip", "clip")])
def test_a_network_prepares_pictures_as_it_was_trained(
    tmp_path: Path,
    triplets: TripletSet,
    published: ReformulationJob,
    augmentation: str,
    mode: str,
) -> None:
    import torch

    from models.instructcir.checkpoint import load_network
    from tasks.training.instructcir import _train_and_publish

    job = published
    if augmentation != job.training.augmentation:
        job = short_job(tmp_path, triplets, training={"augmentation": augmentation})
        _train_and_publish(job, run_settings(), {})
    loaded = load_network(Path(job.root, job.folder))
    assert loaded.online.parts.preprocess.mode == loaded.target.parts.preprocess.mode == mode
    # Retrieval sees the pixels that training saw.
    data = job.load_data(run_settings(), loaded.online)
    (batch,) = data.still_batches(data.validation, [0], 1)
    reference = data.validation.triplets[0].reference
    ((_, stored),) = triplets.images().read_images([reference])
    (pixels,) = loaded.online.parts.preprocess.batches([decode_image(stored)], 1)
    torch.testing.assert_close(data.normalised(batch["references"]), pixels)


def test_a_label_makes_another_network_and_stays_with_it(
    tmp_path: Path, triplets: TripletSet, published: ReformulationJob
) -> None:
    from tasks.training.instructcir import _train_and_publish

    labelled = short_job(tmp_path, triplets, not_zero_shot=True)
    assert "not_zero_shot" not in published.spec  # or every key of the past would change
    assert labelled.key != published.key == short_job(tmp_path, triplets).key
    _train_and_publish(labelled, run_settings(), {})
    for each in (published, labelled):
        facts = network_facts(each.place)
        assert facts.zero_shot is (each is published)
        assert ("Not zero-shot" in Path(each.place, "README.md").read_text()) is (each is labelled)


def test_a_label_is_no_note(tmp_path: Path) -> None:
    from flows.train_reformulation import train_reformulation

    triplets = {"root": str(tmp_path), "spec_key": "0" * 20, "collections": ["c"], "count": 9}
    with pytest.raises(ValueError, match="give not_zero_shot as a parameter, not in notes"):
        train_reformulation.fn(triplets, notes={"not_zero_shot": "false"})


def test_a_batch_that_devices_cannot_share_is_refused_before_any_work(
    tmp_path: Path, triplets: TripletSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.train_reformulation import train_reformulation
    from tasks.training.instructcir import _train_and_publish

    def started(*given: Any) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr("flows.train_reformulation.train_reformulation_network", started)
    monkeypatch.setattr("models.instructcir.network.build_network", started)
    with pytest.raises(ValueError, match=r"3 devices cannot share equally; .* is 6 or 9"):
        train_reformulation.fn(
            triplets.model_dump(mode="json"),
            settings={"root": str(tmp_path)},
            batch_size=8,
            devices=3,
        )
    job = short_job(tmp_path, triplets)
    with pytest.raises(ValueError, match="3 devices cannot share equally"):
        _train_and_publish(job, run_settings(devices=3), {})


def test_a_training_killed_after_its_last_step_is_finished(
    tmp_path: Path, triplets: TripletSet
) -> None:
    job = short_job(tmp_path, triplets)
    first_stage(job)
    folder = job.training_folder
    whole = folder.finished()
    assert whole is not None
    (folder.path / HISTORY).unlink()
    first_stage(job)
    assert folder.finished() == whole


def test_state_goes_with_the_last_file_and_what_people_read_stays(
    tmp_path: Path, triplets: TripletSet
) -> None:
    from tasks.training.instructcir import _train_and_publish

    job = short_job(tmp_path, triplets)
    first_stage(job)
    path = job.training_folder.path
    assert {CHECKPOINT, SLOTS[0]} <= {each.name for each in path.iterdir()}
    _train_and_publish(job, run_settings(), {})
    left = {each.name for each in path.iterdir()}
    assert HISTORY in left
    assert left.isdisjoint({CHECKPOINT, *SLOTS})
    (tmp_path / job.folder / "config.json").unlink()  # somebody wants it anew
    assert job.training_folder.finished() is None
    _train_and_publish(job, run_settings(), {})
    assert job.is_published


def test_a_second_process_is_told_who_trains(tmp_path: Path) -> None:
    folder = TrainingFolder(str(tmp_path), "training/job")
    code = (
        "import sys; from tasks.training.folder import TrainingFolder\n"
        "with TrainingFolder(sys.argv[1], 'training/job').held():\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        told = rf"process {process.pid} on .*run again"
        with pytest.raises(TrainingHeld, match=told), folder.held():
            pass
        process.kill()
    with folder.held():  # a killed process holds nothing
        pass


def test_a_job_is_trained_by_one_process_at_a_time(
    tmp_path: Path, triplets: TripletSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is held while both stages run, and a job published meanwhile is left alone."""
    from tasks.training import instructcir as reformulation_training

    job = short_job(tmp_path, triplets)
    seen: list[bool] = []

    def refused(self: TrainingFolder) -> Any:
        seen.append(True)
        raise TrainingHeld("process 1")

    monkeypatch.setattr(TrainingFolder, "held", refused)
    with pytest.raises(TrainingHeld):
        reformulation_training.train_reformulation_network.fn(job, run_settings(), {})
    assert seen
    assert not job.is_published


def test_combiners_learn_from_the_embeddings_that_encoders_give(
    tmp_path: Path, triplets: TripletSet
) -> None:
    import torch

    from models.instructcir.checkpoint import LoadedNetwork
    from models.instructcir.encoder import ReformulationEncoder
    from models.instructcir.network import build_network
    from models.instructcir.second_stage import frozen_features

    job = short_job(tmp_path, triplets)
    online = build_network(job.encoder, job.network, 0)
    average = build_network(job.encoder, job.network, 1)
    data = job.load_data(run_settings(), online)
    found = frozen_features(
        data, data.validation, online, average, with_image=True, device=torch.device("cpu")
    )
    assert found.image_null is not None
    references = [t.reference for t in data.validation.triplets]
    stored = dict(triplets.images().read_images(references))
    pictures: list[Image.Image] = [decode_image(stored[name]) for name in references]
    loaded = LoadedNetwork(online, average, None, {"network": "test"}, {})
    texts = [t.text for t in data.validation.triplets]
    for_queries = ReformulationEncoder(loaded, "online", "cpu").encode_queries(pictures, texts)
    assert for_queries.image is not None
    for mine, theirs in (
        (found.z, for_queries.z),
        (found.text, for_queries.text),
        (found.image_null, for_queries.image),
    ):
        np.testing.assert_allclose(mine.numpy(), theirs, atol=1e-4)
    gallery = ReformulationEncoder(loaded, "online", "cpu").encode_gallery(pictures)
    assert not np.allclose(found.image_null.numpy(), gallery, atol=1e-2)  # the test can fail


@pytest.mark.parametrize("branch", ["online", "ema"])
@pytest.mark.parametrize("kind", ["scalar", "clip4cir_scalar"])
def test_each_image_is_embedded_once_and_combiners_learn_the_same(
    tmp_path: Path, triplets: TripletSet, monkeypatch: pytest.MonkeyPatch, branch: str, kind: str
) -> None:
    """Against every triplet's own images, embedded triplet by triplet."""
    import torch

    from models.instructcir.combiner import new_combiner
    from models.instructcir.combiner_training import FrozenFeatures, train_combiner
    from models.instructcir.network import ReformulationNetwork, build_network
    from models.instructcir.second_stage import frozen_features, rows_to_embed

    job = short_job(tmp_path, triplets)
    online, average = (build_network(job.encoder, job.network, seed).eval() for seed in (0, 1))
    query = online if branch == "online" else average
    with_image = kind == "clip4cir_scalar"
    data = job.load_data(run_settings(), online)
    rows = data.training
    plain: list[list[torch.Tensor]] = []
    with torch.no_grad():
        for batch in data.still_batches(rows, range(len(rows.triplets)), 1):
            reference = data.normalised(batch["references"])
            output = query.query(reference, batch["texts"])
            target = average.target(data.normalised(batch["targets"]))
            plain.append([output.z, output.text, query.target(reference), target])
    z, text, image, targets = (torch.cat(column) for column in zip(*plain, strict=True))
    ids = torch.tensor([rows.numbers[t.target] for t in rows.triplets])
    expected = FrozenFeatures(z, text, image if with_image else None, targets, ids)

    seen: list[int] = []
    embed = ReformulationNetwork.target

    def counted(self: ReformulationNetwork, pixels: torch.Tensor, *null: Any) -> torch.Tensor:
        seen.append(len(pixels))
        return embed(self, pixels, *null)

    monkeypatch.setattr(ReformulationNetwork, "target", counted)
    ticks: list[int] = []
    cpu = torch.device("cpu")
    found = frozen_features(data, rows, query, average, with_image, cpu, tick=ticks.append)
    sides = [{t.target for t in rows.triplets}]
    if with_image and branch == "ema":
        sides[0] |= {t.reference for t in rows.triplets}
    elif with_image:
        sides.append({t.reference for t in rows.triplets})
    assert sum(seen) == sum(map(len, sides)) < len(rows.triplets) * (1 + with_image)
    assert sum(ticks) == rows_to_embed(rows, query is average, with_image)
    assert sum(ticks) == sum(seen) + len(rows.triplets)
    trained = []
    for features in (expected, found):
        combiner = new_combiner(online.dim, CombinerSettings(kind=kind))  # type: ignore[arg-type]
        losses = train_combiner(
            combiner, features, job.loss, learning_rate=0.01, epochs=1, batch_size=8, seed=0
        )
        trained.append((losses, combiner.logit.item()))
    assert trained[1][0] == pytest.approx(trained[0][0], rel=1e-5)
    assert trained[1][1] == pytest.approx(trained[0][1], rel=1e-5)


def test_the_second_stage_shows_how_far_it_is(tmp_path: Path, triplets: TripletSet) -> None:
    """Stage two is part of the whole, which is reached at its end and not before."""
    from tasks.training.instructcir import _train_and_publish
    from tasks.training.shown_progress import ShownProgress

    job = short_job(tmp_path, triplets)
    steps, second = job.amounts()
    assert (steps, second) == (2, math.ceil(len(job.split().training) / 16))
    ticks: list[int] = []
    totals: list[int] = []
    plain = ShownProgress.embedded

    def embedded(self: ShownProgress, count: int, total: int) -> None:
        totals.append(total)
        plain(self, count, total)
        assert (sum(ticks) == steps + second) is (count == total)

    with pytest.MonkeyPatch.context() as patched, progress.listening(ticks.append):
        patched.setattr(ShownProgress, "embedded", embedded)
        patched.setattr("models.instructcir.second_stage._BATCH", 7)
        _train_and_publish(job, run_settings(), {})
    assert len(totals) > 4
    assert sum(ticks) == steps + second
    assert replace(job, combiner=None).amounts() == (2, 0)


def test_the_second_stage_goes_on_with_the_temperature_of_the_first(
    tmp_path: Path, triplets: TripletSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch
    import torch

    from models.instructcir import combiner_training
    from models.instructcir.stage_one_weights import learned_loss
    from tasks.training.instructcir import _train_and_publish

    loss = {"temperature": 0.1, "learnable_temperature": True}
    job = replace(
        short_job(tmp_path, triplets, training={"new_learning_rate": 0.1}),
        loss=LossSettings(**loss),  # type: ignore[arg-type]
    )
    first_stage(job)
    history = job.training_folder.finished()
    assert history is not None
    kept = safetensors.torch.load_file(job.training_folder.path / history.kept["file"])
    learned = math.exp(-float(kept["temperature.log_scale"]))
    assert abs(learned - 0.1) > 0.001
    used: list[float] = []
    plain = combiner_training.contrastive_loss

    def watched(queries: Any, targets: Any, ids: Any, settings: LossSettings) -> torch.Tensor:
        used.append(settings.temperature)
        return plain(queries, targets, ids, settings)

    monkeypatch.setattr(combiner_training, "contrastive_loss", watched)
    _train_and_publish(job, run_settings(), {})
    assert used == pytest.approx([learned] * len(used))
    at_bound = {"temperature.log_scale": torch.tensor([math.log(100)])}
    assert learned_loss(job.loss, at_bound).temperature == pytest.approx(0.01)
    assert used


def test_triplets_made_again_are_seen(tmp_path: Path) -> None:
    """A process that lives long reads a table that has changed anew, and trains no stale job."""
    triplets = write_triplets(str(tmp_path), pairs=40)
    job = short_job(tmp_path, triplets)
    before = job.split()
    assert job.split() is before  # read once
    table = triplets.table()
    good = {"status": "ok", "text": "make it green", "reason": ""}
    failed = table.read().filter(pl.col("status") != "ok")
    by_id = {row["triplet_id"]: row | good for row in failed.to_dicts()}
    for shard in table.plan(sorted(by_id), 100, retry_failed=True).shards:
        part = pa.Table.from_pylist([by_id[k] for k in shard.members], table.schema.arrow)
        table.publish(shard, part)
    again = short_job(tmp_path, triplets)
    assert [_pairs(each) for each in (before, again.split())] == [36, 40]
    assert again.key != job.key
    with pytest.raises(ValueError, match="has changed since"):
        job.split()


def _pairs(split: TripletSplit) -> int:
    return len(split.training) + len(split.validation) + split.left_out
