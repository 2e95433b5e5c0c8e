"""Training steps of InstructCIR: the project's network, loss and average against plain modules.

A step is loss, backward, clipping, AdamW and moving average, under bf16 autocast on a GPU; the
pictures lie ready on the device. Lightning's loop around it is measured by
`bench.reformulation_step`. Operations are those that the model asks for (query path forward and
backward, targets forward): what checkpointing computes again takes time and is not counted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from bench.gpu import made
from bench.gpu.bare_reformulation import BareStep
from bench.gpu.case import Case
from bench.gpu.failures import attempted, release
from bench.gpu.records import Gap, Row, Work
from bench.gpu.timing import Clock, repeats
from bench.gpu.work import counted_flops
from models.devices import autocast_of
from models.encoders.spec import EncoderSpec
from models.instructcir.ema import EmaTarget
from models.instructcir.network import ReformulationNetwork, build_network
from models.instructcir.settings import LossSettings
from models.instructcir.step import step_loss

_BATCH: Final = 128
_STEPS: Final = 10**6
_TEXT: Final = "the dog now lies on green grass beside a small red ball"
"""Twelve words, as many as a modification text may have."""


@dataclass(frozen=True, slots=True)
class Variant:
    """How the steps are run.

    Attributes:
        batch: Triplets in a step.
        checkpointing: Whether activations are computed again in the backward pass.
        compiled: Whether both paths go through `torch.compile`.
    """

    batch: int
    checkpointing: bool = False
    compiled: bool = False

    def __str__(self) -> str:
        said = f"InstructCIR, ViT-L/14, batches of {self.batch}"
        said += ", checkpointing" if self.checkpointing else ""
        return said + (", compiled" if self.compiled else "")


class Steps:
    """The project's training step on batches that lie on the device."""

    def __init__(self, network: ReformulationNetwork, case: Case) -> None:
        """Take a network over."""
        self.network = network.to(case.device).train()
        self.ema = EmaTarget(network)
        self._half = case.half
        self._device = case.device
        self._loss = LossSettings()
        self._optimizer = torch.optim.AdamW(
            [
                {"params": list(group.parameters), "weight_decay": 0.1 if group.decay else 0.0}
                for group in network.parameter_groups()
            ],
            lr=1e-5,
        )
        self._taken = 0
        self.run_as(Variant(0))

    def run_as(self, variant: Variant) -> None:
        """Choose checkpointing and compilation."""
        self.network.set_gradient_checkpointing(variant.checkpointing)
        query, target = self.network.query, self.ema.network.target
        self._query = torch.compile(query) if variant.compiled else query
        self._target = torch.compile(target) if variant.compiled else target

    def loss(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of a batch."""
        with autocast_of(self._device, self._half):
            return step_loss(self._query, self._target, dict(batch), self._loss)

    def take(self, batch: Mapping[str, torch.Tensor]) -> None:
        """One step."""
        self._optimizer.zero_grad(set_to_none=True)
        self.loss(batch).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimizer.step()
        self.ema.update(self.network, self._taken, _STEPS)
        self._taken += 1

    def flops(self, batch: Mapping[str, torch.Tensor]) -> int:
        """Operations of a step's passes, as they are carried out."""
        counted = counted_flops(lambda: self.loss(batch).backward())
        self.network.zero_grad(set_to_none=True)
        return counted

    def triplet_flops(self, batch: Mapping[str, torch.Tensor]) -> float:
        """Operations that one more triplet adds to a step, nothing computed twice."""
        self.run_as(Variant(0))
        two, four = (self.flops({n: t[:size] for n, t in batch.items()}) for size in (2, 4))
        return (four - two) / 2


def measure(case: Case) -> Iterator[Row | Gap]:
    """Plain steps against the bare ones; then checkpointing, twice the batch, compilation."""
    size = 4 if case.small else _BATCH
    variants = [
        Variant(size, checkpointing=True),
        Variant(2 * size, checkpointing=True),
        Variant(size, compiled=True),
        Variant(size, checkpointing=True, compiled=True),
    ]
    steps = Steps(_network(case), case)
    batch = _batch(steps.network, 2 * size, case.device)
    flops = steps.triplet_flops(batch)
    row = functools.partial(_row, steps, batch, flops)
    plain = Variant(size)
    share = case.until_earlier(case.for_the_next(1 + len(variants)))
    yield from attempted("instructcir", str(plain), lambda: row(plain, share, against_bare=True))
    for number, variant in enumerate(variants):
        if case.small and variant.compiled:
            continue
        share = case.until_earlier(case.for_the_next(len(variants) - number))
        yield from attempted("instructcir", str(variant), functools.partial(row, variant, share))


def _row(
    steps: Steps,
    whole: Mapping[str, torch.Tensor],
    flops: float,
    variant: Variant,
    case: Case,
    against_bare: bool = False,
) -> Row:
    clock = Clock(case.device)
    batch = {name: tensor[: variant.batch] for name, tensor in whole.items()}
    steps.run_as(variant)
    started = clock.seconds(lambda: steps.take(batch))
    note = f"first step {started:.1f} s" if variant.compiled else ""
    memory = clock.peak_of(lambda: steps.take(batch))
    once = clock.seconds(lambda: steps.take(batch))
    bare: BareStep | None = None
    if against_bare:
        release()
        bare = _bare(steps, batch, case)
        if bare is None:
            release()
            note = "the bare form does not fit in the card's memory beside it"
        else:
            once = max(once, clock.seconds(functools.partial(bare.take, batch)))
    times = 1 if case.small else repeats(once, case.left)

    def taken(take: Callable[[Mapping[str, torch.Tensor]], None]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(times):
                take(batch)

        return run

    other = bare and taken(bare.take)
    turns = clock.interleaved(taken(steps.take), other, case.until, warm=True)
    count = times * variant.batch
    return Row(
        part="instructcir",
        what=str(variant),
        unit="triplets",
        rate=count / turns.seconds,
        bare=count / turns.bare_seconds if turns.bare_seconds else None,
        spread=turns.spread,
        turns=len(turns.ours),
        work=Work(flops=flops, dtype=case.half),
        memory=memory,
        note="; ".join(filter(None, [f"{turns.seconds / times:.3f} s a step", note])),
    )


def _bare(steps: Steps, batch: Mapping[str, torch.Tensor], case: Case) -> BareStep | None:
    """The bare form after its first step; None where both do not fit in the memory."""
    try:
        bare = BareStep(steps.network, case.device, case.half != "fp32")
        bare.average.load_state_dict(bare.network.state_dict())
        bare.take(dict(batch))
    except torch.OutOfMemoryError:
        return None
    return bare


def _network(case: Case) -> ReformulationNetwork:
    """A random network, on the CPU."""
    with made.backbone("ViT-L-14", case.small) as (name, pretrained):
        spec = EncoderSpec(name=name, pretrained=pretrained, preprocess="clip", device="cpu")
        return build_network(spec)


def _batch(
    network: ReformulationNetwork, size: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Random pictures with one text; every target is another image."""
    side = network.image.image_size
    height, width = side if isinstance(side, tuple) else (side, side)
    images = torch.randn(2, size, 3, height, width, device=device)
    return {
        "references": images[0],
        "targets": images[1],
        "texts": network.text_ids([_TEXT] * size).to(device),
        "target_ids": torch.arange(size, device=device),
    }
