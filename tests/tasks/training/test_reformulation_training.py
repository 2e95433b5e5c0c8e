"""The training of the reformulation network: by hand, resumed, killed, on two processes."""

from __future__ import annotations

import json
import math
import shutil
import uuid
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import polars as pl
import pytest
from pydantic import TypeAdapter

from models.training.schedules import rate_factor
from storage.locations.location import Location
from tasks.training.folder import CHECKPOINT
from tasks.training.triplet_sets import TripletSet
from tests.fakes.captured_graphs import capture_graphs
from tests.fakes.small_trainings import NOISE, Interrupted, Train, job_at, run_settings, stop_after

if TYPE_CHECKING:
    import torch
    from torch import nn

    from models.instructcir.lightning_module import ReformulationModule
    from tasks.training.reformulation_job import ReformulationJob

pytestmark = pytest.mark.usefixtures("one_thread")


def assert_almost_all_close(mine: torch.Tensor, theirs: torch.Tensor) -> None:
    """Equal but for rounding; at most one weight in a thousand moves by a rate of its own.

    AdamW divides each gradient by its own size, so that a weight whose gradient is next to nothing
    follows the rounding of the machine.
    """
    import torch

    close = torch.isclose(mine, theirs, rtol=2e-3, atol=2e-5)
    assert close.float().mean() > 0.999
    torch.testing.assert_close(mine, theirs, rtol=2e-3, atol=1e-3)


def naive_run(job: ReformulationJob, steps: int) -> tuple[list[float], nn.Module, nn.Module]:
    """The first steps written down plainly: losses, the network, its moving average."""
    import torch

    from models.instructcir.network import build_network

    settings = job.training
    total = settings.max_steps or 0
    network = build_network(job.encoder, job.network, settings.seed).train()
    average = build_network(job.encoder, job.network, settings.seed)
    data = job.load_data(run_settings(), network)
    dataset = data.train_dataloader()._dataset
    fresh = {id(p) for _, p in network.new_parameters()}
    optimizers = []
    for name, p in network.named_parameters():
        if not p.requires_grad:
            continue
        plain = p.ndim < 2 or "positional" in name
        rate = settings.new_learning_rate if id(p) in fresh else settings.learning_rate
        decay = 0.0 if plain else settings.weight_decay
        optimizers.append((torch.optim.AdamW([p], lr=rate, weight_decay=decay), rate))
    losses = []
    for step in range(steps):
        batch = dataset[step]
        queries = network.query(data.normalised(batch["references"]), batch["texts"]).z
        with torch.no_grad():
            targets = average.target(data.normalised(batch["targets"]))
        unit_q = queries / queries.norm(dim=1, keepdim=True)
        unit_t = targets / targets.norm(dim=1, keepdim=True)
        loss = torch.zeros(())
        ids = batch["target_ids"].tolist()
        for i in range(len(ids)):
            scores = [
                unit_q[i] @ unit_t[j] / job.loss.temperature
                for j in range(len(ids))
                if j == i or ids[j] != ids[i]
            ]
            own = unit_q[i] @ unit_t[i] / job.loss.temperature
            loss = loss + (torch.logsumexp(torch.stack(scores), 0) - own) / len(ids)
        network.zero_grad()
        loss.backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        for gradient in gradients:
            gradient.mul_(min(1.0, settings.clip / (norm + 1e-6)))
        for optimizer, rate in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * rate_factor(step, total, settings.warmup)
            optimizer.step()
        momentum = 0.996 + 0.004 * step / total
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
                slow.copy_(momentum * slow + (1 - momentum) * fast)
        losses.append(float(loss.detach()))
    return losses, network, average


def test_a_run_is_the_one_written_down_plainly(
    tmp_path: Path, triplets: TripletSet, train: Train
) -> None:
    """Losses, clipping, rates, decay, moving average and its momentum against a naive loop."""
    job = job_at(
        tmp_path, triplets, training={"max_steps": 4, "warmup": 0.5, "keep": "last", "clip": 0.5}
    )
    history, weights = train(job)
    losses, network, average = naive_run(job, 4)
    assert [point["loss"] for point in history.points] == pytest.approx(losses, rel=1e-4)
    for prefix, plain in (("network.", network), ("ema.network.", average)):
        for name, parameter in plain.named_parameters():
            if not name.endswith(NOISE):
                assert_almost_all_close(weights[prefix + name], parameter.detach())
    moved = weights["network.text.embedding.weight"] - weights["ema.network.text.embedding.weight"]
    assert moved.abs().max() > 1e-4
    assert [point["momentum"] for point in history.points] == pytest.approx(
        [0.996, 0.997, 0.998, 0.999]
    )
    assert [point["lr_new"] / 3e-3 for point in history.points] == pytest.approx(
        [0.5, 1.0, 1.0, 0.5]
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"augmentation": "random_resized_crop", "class_grouping": 2}},
        {"training": {"accumulate": 2, "max_steps": 7}, "ema": {"enabled": False}},
    ],
)
def test_resumed_runs_end_with_the_same_weights(
    tmp_path: Path, triplets: TripletSet, train: Train, changes: dict[str, Any]
) -> None:
    import torch

    undisturbed, weights = train(job_at(tmp_path / "a", triplets, **changes))
    job = job_at(tmp_path / "b", triplets, **changes)
    for last in (2, 5, 6):  # before the first save, after one, after another
        torch.manual_seed(last)  # whatever else happens in a process must not matter
        with pytest.raises(Interrupted):
            train(job, report=stop_after(last))
    history, again = train(job)
    assert history == undisturbed
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    assert [point["step"] for point in history.points] == list(range(1, job.training.max_steps + 1))


def test_what_is_saved_can_be_read_without_running_anything(
    tmp_path: Path, triplets: TripletSet, train: Train
) -> None:
    import torch

    job = job_at(tmp_path, triplets)
    with pytest.raises(Interrupted):
        train(job, report=stop_after(5))
    path = job.training_folder.path / CHECKPOINT
    assert torch.load(path, weights_only=True)["global_step"] == 4  # saved with the validation
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises((RuntimeError, OSError)):
        train(job)


@pytest.mark.parametrize(("keep", "step"), [("best", None), ("last", 10)])
def test_the_kept_weights_are_those_of_the_best_validation(
    tmp_path: Path, triplets: TripletSet, train: Train, keep: str, step: int | None
) -> None:
    import torch

    job = job_at(tmp_path, triplets, training={"keep": keep, "validate_every": 2})
    history, weights = train(job)
    scores = {row["step"]: row["score"] for row in history.validations}
    assert list(scores) == [2, 4, 6, 8, 10]
    best = max(s for s, score in scores.items() if score == max(scores.values()))
    assert history.kept["step"] == (best if step is None else step)
    # The weights are really that step's: a run that stops there ends with them.
    short = job_at(tmp_path / "short", triplets, training={"keep": "last", "max_steps": 10})
    until = run_settings(save_steps=1)
    if history.kept["step"] < 10:
        with pytest.raises(Interrupted):
            train(short, until, stop_after(int(history.kept["step"]) + 1))
        state = torch.load(short.training_folder.path / CHECKPOINT, weights_only=True)
        assert state["global_step"] == history.kept["step"]
        assert all(torch.equal(state["state_dict"][name], weights[name]) for name in weights)


def test_validation_counts_what_a_person_would(
    tmp_path: Path, triplets: TripletSet, train: Train
) -> None:
    import torch
    from torch import nn

    from models.instructcir.ema import EmaTarget
    from models.instructcir.network import build_network

    job = job_at(tmp_path, triplets, training={"keep": "last", "max_steps": 2})
    history, weights = train(job)
    network = build_network(job.encoder, job.network)
    network.load_state_dict(
        {k.removeprefix("network."): v for k, v in weights.items() if k.startswith("network.")}
    )
    average = EmaTarget(network)
    average.load_state_dict(
        {k.removeprefix("ema."): v for k, v in weights.items() if k.startswith("ema.")}
    )
    data = job.load_data(run_settings(), network)
    (batch,) = data.still_batches(data.validation, range(5), 5)
    with torch.no_grad():
        z = network.query(data.normalised(batch["references"]), batch["texts"]).z
        t = average.network.target(data.normalised(batch["targets"]))
    similar = nn.functional.cosine_similarity(z[:, None], t[None], dim=-1)
    ids = batch["target_ids"].tolist()
    ranks = []
    for i in range(5):
        others = {ids[j]: float(similar[i, j]) for j in range(5) if ids[j] != ids[i]}
        ranks.append(sum(value >= float(similar[i, i]) for value in others.values()))
    (row,) = history.validations
    assert row["online_recall_1"] == pytest.approx(np.mean([rank < 1 for rank in ranks]))
    assert row["online_recall_5"] == pytest.approx(np.mean([rank < 5 for rank in ranks]))


def test_published_once_with_everything_that_belongs_to_it(
    tmp_path: Path, triplets: TripletSet, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from models.instructcir.checkpoint import load_network
    from tasks.training.instructcir import _train_and_publish
    from tasks.training.reformulation_job import ReformulationJob

    job = job_at(tmp_path, triplets, not_zero_shot=True)
    history, kept = train(job)
    assert not job.is_published
    _train_and_publish(job, run_settings(), {"rewriter": "small"})
    folder = tmp_path / job.folder
    loaded = load_network(folder)
    for name, tensor in loaded.online.state_dict().items():
        assert torch.equal(tensor, kept[f"network.{name}"])
    for name, tensor in loaded.target.state_dict().items():
        assert torch.equal(tensor, kept[f"ema.network.{name}"])
    assert loaded.combiner is not None
    card = (folder / "README.md").read_text()
    assert "Not zero-shot" in card
    assert "| rewriter | small |" in card
    curves = pl.read_csv(folder / "curves.csv")
    assert curves["step"].to_list() == list(range(1, 11))
    assert curves["validation_score"].drop_nulls().len() == len(history.validations) == 3
    assert json.loads((folder / "config.json").read_text())["provenance"]["spec"] == json.loads(
        json.dumps(job.spec)
    )
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    shutil.rmtree(tmp_path / "training")
    monkeypatch.setattr(ReformulationJob, "is_published", False)
    _train_and_publish(
        job, run_settings(), {}
    )  # a racing machine: it trains again, but writes nothing
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written


def test_a_root_on_s3_keeps_state_and_network(
    s3_environment: None, triplets: TripletSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.instructcir.network import build_network
    from tasks.training.instructcir import _train_and_publish
    from tasks.training.trainer import fit

    bucket = f"training-{uuid.uuid4().hex}"
    fsspec.filesystem("s3", use_listings_cache=False).mkdir(bucket)
    job = replace(job_at(tmp_path, triplets), root=f"s3://{bucket}/root")
    network = build_network(job.encoder, job.network, job.training.seed)
    data = job.load_data(run_settings(), network)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "one-machine"))
    job.training_folder.fetch()
    assert job.training_folder.path.is_dir()
    assert (tmp_path / "one-machine" / "cirflow").stat().st_mode & 0o777 == 0o700
    with pytest.raises(Interrupted):
        fit(job, run_settings(), data, network, stop_after(5))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    job.training_folder.fetch()
    network = build_network(job.encoder, job.network, job.training.seed)
    steps: list[int] = []
    fit(job, run_settings(), data, network, lambda step, total, loss: steps.append(step))
    assert steps == [5, 6, 7, 8, 9, 10]
    _train_and_publish(job, run_settings(), {})
    assert job.is_published
    assert "README.md" in [Path(path).name for path in Location(job.root).list(job.folder)]


def test_a_loss_that_is_no_number_says_what_to_do(
    tmp_path: Path, triplets: TripletSet, train: Train
) -> None:
    job = job_at(tmp_path, triplets, training={"learning_rate": 1e30, "clip": 0.0})
    with pytest.raises(FloatingPointError, match=r"step [2-9].*new_learning_rate.*is another"):
        train(job)


def test_weights_that_are_not_finite_are_not_saved(
    tmp_path: Path, triplets: TripletSet, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of a step is that of the weights before it, so that it shows too late."""
    import torch

    from models.instructcir.lightning_module import ReformulationModule

    plain = ReformulationModule.configure_gradient_clipping

    def broken(self: ReformulationModule, optimizer: Any, **limits: Any) -> None:
        plain(self, optimizer, **limits)
        if self.trainer.global_step == 2:  # the third step
            optimizer.param_groups[-1]["params"][0].grad[0] = float("nan")

    monkeypatch.setattr(ReformulationModule, "configure_gradient_clipping", broken)
    job = job_at(tmp_path, triplets, training={"validate_every": 3})
    with pytest.raises(FloatingPointError, match=r"weights are not finite .* step 3.*is another"):
        train(job, run_settings(save_steps=1))
    state = torch.load(job.training_folder.path / CHECKPOINT, weights_only=True)
    assert state["global_step"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in state["state_dict"].values())


def test_bfloat16_is_near_and_its_weights_are_fp32(
    tmp_path: Path, triplets: TripletSet, train: Train
) -> None:
    import torch

    from models.instructcir.checkpoint import load_network
    from tasks.training.instructcir import _train_and_publish

    training = {"max_steps": 3, "keep": "last"}
    exact, _ = train(job_at(tmp_path / "fp32", triplets, training=training))
    job = job_at(tmp_path / "bf16", triplets, training=training | {"precision": "bf16"})
    history, weights = train(job)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    for half, whole in zip(history.points, exact.points, strict=True):
        assert half["loss"] == pytest.approx(whole["loss"], rel=0.1)
        assert half["loss"] != whole["loss"]
    (first, same_weights) = history.points[0], exact.points[0]
    assert first["gradient_norm"] == pytest.approx(same_weights["gradient_norm"], rel=0.1)
    _train_and_publish(job, run_settings(), {})  # both stages
    assert load_network(tmp_path / "bf16" / job.folder).combiner is not None


def test_tf32_is_fp32_on_a_cpu_under_a_key_of_its_own(
    tmp_path: Path, triplets: TripletSet, train: Train
) -> None:
    import torch

    jobs = [
        job_at(tmp_path, triplets, training={"max_steps": 1, "validation": 0, "precision": each})
        for each in ("fp32", "tf32")
    ]
    assert jobs[0].key != jobs[1].key
    (_, wanted), (_, found) = (train(job) for job in jobs)
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize(("precision", "products"), [("fp32", "highest"), ("tf32", "high")])
def test_training_multiplies_in_the_precision_that_it_names(
    monkeypatch: pytest.MonkeyPatch, precision: str, products: str
) -> None:
    """On a GPU, of which the test needs no more than the name."""
    import torch

    from tasks.training import trainer

    seen: list[str] = []
    monkeypatch.setattr(
        trainer, "_fit", lambda *_: seen.append(torch.get_float32_matmul_precision())
    )
    job: Any = SimpleNamespace(settings=SimpleNamespace(precision=precision))
    run: Any = SimpleNamespace(device=lambda: torch.device("cuda"))
    nothing: Any = None
    trainer.fit(job, run, nothing, nothing, nothing)
    assert seen == [products]
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.slow
def test_compiled_training_is_the_same(
    tmp_path: Path, triplets: TripletSet, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {"max_steps": 2, "keep": "last"}
    plain, weights = train(job_at(tmp_path / "plain", triplets, training=training))
    captured = capture_graphs(monkeypatch)
    job = job_at(tmp_path / "compiled", triplets, training=training | {"compile": True})
    history, again = train(job)
    assert captured
    assert [point["loss"] for point in history.points] == pytest.approx(
        [point["loss"] for point in plain.points], rel=1e-5
    )
    for name, tensor in weights.items():
        if not name.endswith(NOISE):
            assert_almost_all_close(again[name], tensor)


def test_the_trained_network_is_let_go_before_the_second_stage(
    tmp_path: Path, triplets: TripletSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.instructcir.network import build_network
    from tasks.training.fitting import _fitted
    from tasks.training.shown_progress import ShownProgress

    made: list[weakref.ref[nn.Module]] = []

    def watched(*given: Any) -> nn.Module:
        network = build_network(*given)
        made.append(weakref.ref(network))
        return network

    monkeypatch.setattr("models.instructcir.network.build_network", watched)
    job = job_at(tmp_path, triplets, training={"max_steps": 1, "validation": 0})
    with ShownProgress(job.key, 1) as shown:
        data, _ = _fitted(job, run_settings(), shown)
    assert [each() for each in made] == [None]
    assert data.training.triplets


def test_settings_and_triplets_that_cannot_be_trained(tmp_path: Path, triplets: TripletSet) -> None:
    from flows.requests.train_reformulation import groups_of
    from flows.train_reformulation import reformulation_job

    for changes, message in (
        ({"network": {"gates": 1}}, "unknown setting of network 'gates'; did you mean 'gate'"),
        ({"training": {"batch_size": "many"}}, r"training.batch_size: .*integer"),
        ({"training": {"batch_size": 500}}, "do not fill a batch of 500"),
        ({"training": {"precision": "fp8"}}, "precision"),
        ({"network": {"null_text": "learned"}}, "null_text='learned'"),
    ):
        with pytest.raises(ValueError, match=message):
            job_at(tmp_path, triplets, **changes)
    with pytest.raises(ValueError, match="bring more"):
        reformulation_job(
            str(tmp_path), triplets.first(2), job_at(tmp_path, triplets).encoder, groups_of({})
        )


def test_the_key_follows_texts_and_settings_but_not_places(
    tmp_path: Path, triplets: TripletSet
) -> None:
    from tasks.training.reformulation_job import ReformulationJob

    job = job_at(tmp_path / "a", triplets)
    assert job.key == job_at(tmp_path / "b", triplets).key
    assert job.key != job_at(tmp_path / "a", triplets, ema={"enabled": False}).key
    assert job.key != job_at(tmp_path / "a", triplets.first(50)).key
    assert (
        TypeAdapter(ReformulationJob).validate_json(TypeAdapter(ReformulationJob).dump_json(job))
        == job
    )
    assert job.training.model_dump()["max_steps"] == 10


def test_an_interrupt_is_not_an_exit(tmp_path: Path, triplets: TripletSet) -> None:
    """Lightning leaves with `SystemExit(1)`, which a command would take for an end of its own."""
    from models.instructcir.network import build_network
    from tasks.training.trainer import fit

    def interrupt(step: int, total: int, loss: float) -> None:
        raise KeyboardInterrupt

    job = job_at(tmp_path, triplets)
    network = build_network(job.encoder, job.network, job.training.seed)
    with pytest.raises(KeyboardInterrupt):
        fit(job, run_settings(), job.load_data(run_settings(), network), network, interrupt)
