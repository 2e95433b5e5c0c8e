"""A training step of the reformulation network against the same modules in a bare loop.

Ours is what `cirflow run train-reformulation` runs: Lightning's loop with batches made from
pictures and texts, schedule, clipping, moving average and logs. The bare loop has the same
batches, network, loss, optimiser, clipping and average and nothing else. One step of each is
taken in turn, on one thread and by processor time.

    python -m bench.reformulation_step            # ViT-B/32 with random weights
    python -m bench.reformulation_step embedded   # the shipped small backbone
"""

from __future__ import annotations

import copy
import io
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import nn

from bench.command_line import command_line
from bench.verdict import Verdict, exit_status, judge, report
from flows.profiles import tiny
from models.encoders.spec import EncoderSpec
from models.instructcir.ema import EmaTarget
from models.instructcir.lightning_module import ReformulationModule
from models.instructcir.loss import contrastive_loss
from models.instructcir.network import ReformulationNetwork, build_network
from models.instructcir.settings import LossSettings
from models.instructcir.training_settings import ReformulationTraining
from models.training.triplet_data import TripletData
from models.triplets import Triplet
from tasks.training.data import decoded_triplets
from tasks.training.reformulation_job import ReformulationJob
from tasks.training.run_settings import RunSettings
from tasks.training.trainer import fit
from tasks.training.triplet_sets import TripletSet, TripletSplit

LARGE: Final = EncoderSpec(name="ViT-B-32", pretrained="random:0", preprocess="clip", device="cpu")
SIZES: Final = {"large": (LARGE, 8, 4, 1.15), "embedded": (tiny().encoder, 64, 30, 1.3)}
"""Backbone, batch size, steps, and the largest ratio that is accepted."""

WARM_UP: Final = 2
_IMAGES: Final = 24


def make_data(
    network: ReformulationNetwork,
    settings: ReformulationTraining,
    texts: Sequence[str] = ("make it red and larger", "add a small dog"),
    workers: int = 0,
) -> TripletData:
    """Two batches of triplets with random pictures, the texts in turn."""
    rng = np.random.default_rng(0)
    count = 2 * settings.batch_size
    ids = [f"{i:064x}" for i in range(_IMAGES)]
    triplets = tuple(
        Triplet(str(i), i, *rng.choice(ids, 2, replace=False), "bench", "", "", "", text)
        for i, text in zip(range(count), itertools.cycle(texts), strict=False)
    )
    data = decoded_triplets(
        TripletSplit(triplets, (), 0),
        lambda names: ((name, _picture(int(name, 16))) for name in names),
        preprocess=network.parts.preprocess,
        tokenised=network.text_ids.batch,
        settings=settings,
        workers=workers,
    )
    return data


class BareLoop:
    """The same step without a framework."""

    def __init__(self, module: ReformulationModule, data: TripletData, loss: LossSettings) -> None:
        self._module = copy.deepcopy(module)
        self._optimizer = self._module.configure_optimizers()["optimizer"]
        self._batches = data.batches(rank=0, world_size=1)
        self._loss = loss
        self._number = 0

    def step(self) -> None:
        """One step on the next batch."""
        module, batch = self._module, self._batches[self._number]
        assert isinstance(module.ema, EmaTarget)
        queries = module.network.query(module.pixels(batch["references"]), batch["texts"]).z
        with torch.no_grad():
            targets = module.ema.network.target(module.pixels(batch["targets"]))
        loss = contrastive_loss(queries, targets, batch["target_ids"], self._loss)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(list(module.network.parameters()), 1.0)
        self._optimizer.step()
        module.ema.update(module.network, self._number, module.total_steps)
        self._number += 1


def measure(spec: EncoderSpec, batch_size: int, steps: int) -> tuple[list[float], list[float]]:
    """Processor seconds of each step: ours, and the bare loop's."""
    torch.set_num_threads(1)
    settings = ReformulationTraining(batch_size=batch_size, max_steps=steps + WARM_UP, validation=0)
    network = build_network(spec.changed(preprocess="clip"))
    data = make_data(network, settings)
    ours: list[float] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory() as root:
        triplets = TripletSet(root=root, spec_key="bench", collections=("bench",), count=1)
        job = ReformulationJob(root, triplets, "bench", spec, training=settings)
        module = ReformulationModule(
            network,
            loss=job.loss,
            ema=job.ema,
            training=settings,
            total_steps=settings.max_steps or 0,
        )
        loop = BareLoop(module, data, job.loss)
        del module
        since = time.process_time()

        def measured(step: int, total: int, loss: float) -> None:
            nonlocal since
            ours.append(time.process_time() - since)
            since = time.process_time()
            loop.step()
            bare.append(time.process_time() - since)
            since = time.process_time()

        fit(job, RunSettings(accelerator="cpu"), data, network, measured)
    return ours[WARM_UP:], bare[WARM_UP:]


def _picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def main(size: str = "large") -> Verdict:
    """Measure, and print the verdict."""
    spec, batch_size, steps, allowed = SIZES[size]
    ours, bare = measure(spec, batch_size, steps)
    ratios = [own / base for own, base in zip(ours, bare, strict=True)]
    ratio, seconds = statistics.median(ratios), statistics.median(ours)
    return report(
        f"reformulation_step_{size}",
        f"reformulation step ({size}, batch {batch_size}): {seconds:.3f} s, {ratio:.3f}x a bare "
        f"loop (allowed {allowed}x)",
        judge(ratios, at_most=allowed),
        {
            "ratio": ratio,
            "allowed": allowed,
            "ratios": ratios,
            "baseline_seconds": statistics.median(bare),
            "seconds": seconds,
            "batch_size": batch_size,
        },
    )


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument("size", nargs="?", choices=SIZES, default="large")
    sys.exit(exit_status([main(parser.parse_args().size)]))
