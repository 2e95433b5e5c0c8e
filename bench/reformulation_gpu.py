"""Training of the reformulation network on a GPU: samples a second, memory, share of its peak.

The steps are those of `cirflow run train-reformulation`: Lightning's loop with batches made from
pictures and texts, moving average, clipping and optimiser, here on random weights. The operations
are those that the model asks for: query path forward and backward, targets forward. What gradient
checkpointing computes again takes time and is not counted: model FLOP utilisation, not hardware's.

    python -m bench.reformulation_gpu                          # ViT-L/14, batches of 128, bf16
    python -m bench.reformulation_gpu --batch 256 --gradient-checkpointing
    python -m bench.reformulation_gpu --device cpu --model models/embedded/clip --batch 8
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.reformulation_step import make_data
from models.encoders.spec import EncoderSpec
from models.instructcir.lightning_module import ReformulationModule
from models.instructcir.network import ReformulationNetwork, build_network
from models.instructcir.training_settings import ReformulationTraining
from models.training.triplet_data import TripletData
from tasks.training.reformulation_job import ReformulationJob
from tasks.training.run_settings import RunSettings
from tasks.training.trainer import fit
from tasks.training.triplet_sets import TripletSet

WARM_UP: Final = 5
_TEXT: Final = "the dog now lies on green grass beside a small red ball"
"""Twelve words, as many as a modification text may have."""

PEAKS: Final = {
    "H200 NVL": 835.5,
    "H200": 989.4,
    "H100 NVL": 835.5,
    "H100 PCIe": 756.5,
    "H100": 989.4,
    "A100": 312.0,
    "L40S": 362.0,
    "RTX 4090": 165.2,
}
"""Words of a device's name -> dense bf16 TFLOP/s of its data sheet; the first that fits counts."""

_OTHER_CHIPS: Final = frozenset({"MIG", "D", "Laptop"})
"""Words that tell a slice of a device, or a smaller one of nearly the same name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured.

    Attributes:
        device: Its name.
        model: The backbone.
        batch: Triplets in a step.
        precision: `bf16` or `fp32`.
        gradient_checkpointing: Whether activations were computed again.
        seconds: Of one step, the mean over all after the warm-up.
        memory: Most bytes allocated on the GPU; None on a CPU.
        sample_flops: Operations that the model asks for, for one triplet.
        peak_tflops: What the device can do at most, in TFLOP/s; None where it is not known.
    """

    device: str
    model: str
    batch: int
    precision: str
    gradient_checkpointing: bool
    seconds: float
    memory: int | None
    sample_flops: float
    peak_tflops: float | None

    @property
    def samples_per_second(self) -> float:
        """Triplets in a second."""
        return self.batch / self.seconds

    @property
    def utilisation(self) -> float | None:
        """Share of the peak that the model's own operations reach."""
        if self.peak_tflops is None:
            return None
        return self.samples_per_second * self.sample_flops / (self.peak_tflops * 1e12)


def peak_tflops(device: str) -> float | None:
    """Dense bf16 TFLOP/s of a device by its name; None where the table does not have it."""
    words = set(re.findall(r"\w+", device))
    if words & _OTHER_CHIPS:
        return None
    return next((peak for name, peak in PEAKS.items() if words.issuperset(name.split())), None)


def step_flops(module: ReformulationModule, batch: Mapping[str, torch.Tensor]) -> int:
    """Operations of one step on a batch, forward and backward, as they are carried out."""
    # Fused attention is counted on some devices and not on others, and torch's shortcut for layers
    # in evaluation on none; written out, attention is counted everywhere.
    shortcut = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            module.training_step(dict(batch), 0).backward()
    finally:
        torch.backends.mha.set_fastpath_enabled(shortcut)
    module.zero_grad(set_to_none=True)
    return int(counter.get_total_flops())


def sample_flops(module: ReformulationModule, batch: Mapping[str, torch.Tensor]) -> float:
    """Operations that one more triplet adds to a step, nothing computed twice."""
    module.network.set_gradient_checkpointing(False)
    two, four = (step_flops(module, {n: t[:size] for n, t in batch.items()}) for size in (2, 4))
    return (four - two) / 2


def _counted(network: ReformulationNetwork, data: TripletData, device: str) -> float:
    """`sample_flops` of a network, which is back on the CPU afterwards."""
    batch = data.train_dataloader()._dataset[0]
    job = _job(EncoderSpec(name="counted"), data.settings, "")
    module = ReformulationModule(
        network, loss=job.loss, ema=job.ema, training=data.settings, total_steps=1
    ).to(device)
    module.configure_model()  # as Lightning does before the first step
    count = sample_flops(module, {name: tensor.to(device) for name, tensor in batch.items()})
    network.cpu()
    return count


def _job(spec: EncoderSpec, settings: ReformulationTraining, root: str) -> ReformulationJob:
    triplets = TripletSet(root=root, spec_key="bench", collections=("bench",), count=1)
    return ReformulationJob(root, triplets, "bench", spec, training=settings)


class _Measured(Exception):
    """The last step was timed; a state of gigabytes need not be saved."""


def measure(
    spec: EncoderSpec, settings: ReformulationTraining, *, steps: int, device: str, workers: int
) -> tuple[float, int | None, float]:
    """Train, and tell seconds of a step, most bytes allocated, and operations of a triplet.

    Args:
        spec: The backbone.
        settings: Batch size, precision and checkpointing count; steps are replaced.
        steps: Steps that are timed, after the warm-up.
        device: `cuda` or `cpu`.
        workers: Threads that prepare batches.
    """
    network = build_network(spec)
    data = make_data(network, settings, [_TEXT], workers)
    count = _counted(network, data, device)
    on_gpu = device == "cuda"
    begun = seconds = 0.0
    memory: int | None = None

    def report(step: int, total: int, loss: float) -> None:
        nonlocal begun, seconds, memory
        if step not in (WARM_UP, WARM_UP + steps):
            return
        if on_gpu:
            torch.cuda.synchronize()
        if step == WARM_UP:
            begun = time.perf_counter()
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            return
        seconds = (time.perf_counter() - begun) / steps
        memory = torch.cuda.max_memory_allocated() if on_gpu else None
        raise _Measured

    run = RunSettings(accelerator="gpu" if on_gpu else "cpu", save_seconds=1e9, loggers=())
    with tempfile.TemporaryDirectory() as root:
        try:
            fit(_job(spec, settings, root), run, data, network, report)
        except _Measured:
            return seconds, memory, count
    raise RuntimeError(f"the training ended before its step {WARM_UP + steps}")


def as_table(figures: Figures) -> str:
    """One row of Markdown, below its head."""
    cells = {
        "device": figures.device,
        "model": figures.model,
        "batch": str(figures.batch),
        "precision": figures.precision,
        "checkpointing": "yes" if figures.gradient_checkpointing else "no",
        "triplets/s": f"{figures.samples_per_second:.1f}",
        "s/step": f"{figures.seconds:.3f}",
        "memory, GiB": "n/a" if figures.memory is None else f"{figures.memory / 2**30:.1f}",
        "GFLOP/triplet": f"{figures.sample_flops / 1e9:.1f}",
        "MFU": "n/a" if figures.utilisation is None else f"{100 * figures.utilisation:.1f} %",
    }
    return "\n".join(
        f"| {' | '.join(row)} |" for row in (cells, ["---"] * len(cells), cells.values())
    )


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.reformulation_gpu")
    parser.add_argument("--model", default="ViT-L-14", help="open_clip's name, or a folder")
    parser.add_argument("--batch", type=int, default=128, help="triplets in a step")
    parser.add_argument("--steps", type=int, default=20, help="steps timed, after the warm-up")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--workers", type=int, default=4, help="threads that prepare batches")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--peak-tflops", type=float, help="of the device, where it is not known")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Measure, and print a row of Markdown and one JSON line.

    Args:
        given: Command-line arguments; None takes the process's.

    Raises:
        SystemExit: No GPU is at hand, or the batch does not fit on it.
    """
    asked = _arguments(given)
    if asked.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "no GPU is at hand; --device cpu tries the code, and its figures say nothing of a GPU"
        )
    if asked.batch < 4 or asked.steps < 1:
        raise SystemExit("--batch is at least 4, and --steps at least 1")
    on_cpu = asked.device == "cpu"
    device = "CPU (not a GPU figure)" if on_cpu else torch.cuda.get_device_name()
    pretrained = "" if Path(asked.model).is_dir() else "random:0"
    settings = ReformulationTraining(
        batch_size=asked.batch,
        max_steps=WARM_UP + asked.steps + 1,
        validation=0,
        precision=asked.precision,
        gradient_checkpointing=asked.gradient_checkpointing,
    )
    try:
        seconds, memory, count = measure(
            EncoderSpec(name=asked.model, pretrained=pretrained, preprocess="clip", device="cpu"),
            settings,
            steps=asked.steps,
            device=asked.device,
            workers=asked.workers,
        )
    except torch.OutOfMemoryError as full:
        raise SystemExit(
            f"a batch of {asked.batch} does not fit on {device}; lower --batch, or give "
            "--gradient-checkpointing"
        ) from full
    known = None if on_cpu or asked.precision != "bf16" else peak_tflops(device)
    figures = Figures(
        device=device,
        model=asked.model,
        batch=asked.batch,
        precision=asked.precision,
        gradient_checkpointing=asked.gradient_checkpointing,
        seconds=seconds,
        memory=memory,
        sample_flops=count,
        peak_tflops=asked.peak_tflops or known,
    )
    print(as_table(figures))
    if figures.utilisation is None:
        print(f"no MFU: the {asked.precision} peak of {device} is not known; give --peak-tflops")
    print(json.dumps({"bench": "reformulation_gpu", **asdict(figures)}))


def main_where_possible() -> None:
    """The same with its defaults where there is a GPU, and else a line that says so."""
    if torch.cuda.is_available():
        return main([])
    print("reformulation network on a GPU: skipped, no GPU is at hand")


if __name__ == "__main__":
    main()
