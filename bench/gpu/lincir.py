"""Training steps of LinCIR: the project's run against the form of the released code.

Ours crops each batch to its longest caption and reads the text tower out at one position; bare
pads to 77 tokens, as open_clip's tower asks for. Both have the tower in half precision on a GPU,
the mapping network in float32, and AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from bench.gpu import made
from bench.gpu.case import Case
from bench.gpu.failures import attempted
from bench.gpu.records import Gap, Row, Work
from bench.gpu.timing import Clock, repeats
from bench.gpu.towers import encoder_of
from bench.gpu.work import counted_flops
from models.textual_inversion.keywords import function_words
from models.textual_inversion.masking import TrainingRow, training_rows
from models.textual_inversion.network import new_module
from models.textual_inversion.settings import LinCirConfig
from models.textual_inversion.training import LinCirTraining

if TYPE_CHECKING:
    from models.encoders.open_clip import OpenClipEncoder

_BATCH: Final = 512
_STEPS: Final = 10**9


def measure(case: Case) -> Iterator[Row | Gap]:
    """A row without and one with a compiled text tower, ViT-L/14."""
    batch = 4 if case.small else _BATCH
    encoder = encoder_of("ViT-L-14", case, batch)
    rows = training_rows(made.captions(8 * batch), encoder.tower.tokens, function_words)
    training = LinCirTraining(
        LinCirConfig(batch_size=batch, steps=_STEPS, normalise_input=False), encoder.tower, rows
    )
    first = case.until_earlier(case.for_the_next(2))
    bare = BareSteps(encoder, training, rows, batch)
    flops = counted_flops(lambda: training.run(training.step + 1)) / batch
    what = f"LinCIR, ViT-L/14, batches of {batch}"
    yield from attempted("lincir", what, lambda: _row(what, training, bare, flops, batch, first))
    if not case.small:
        training.tower.compile()
        what += ", compiled tower"
        yield from attempted("lincir", what, lambda: _row(what, training, None, flops, batch, case))


def _row(
    what: str,
    training: LinCirTraining,
    bare: Callable[[int], object] | None,
    flops: float,
    batch: int,
    case: Case,
) -> Row:
    clock = Clock(case.device)

    def ours(steps: int) -> None:
        training.run(training.step + steps)

    ours(2)
    memory = clock.peak_of(lambda: ours(1))
    once = clock.seconds(lambda: ours(2)) / 2
    if bare is not None:
        bare(1)
        once = max(once, clock.seconds(lambda: bare(2)) / 2)
    steps = 1 if case.small else repeats(once, case.left)
    turns = clock.interleaved(
        lambda: ours(steps), bare and (lambda: bare(steps)), case.until, warm=True
    )
    count = steps * batch
    return Row(
        part="lincir",
        what=what,
        unit="captions",
        rate=count / turns.seconds,
        bare=count / turns.bare_seconds if turns.bare_seconds else None,
        spread=turns.spread,
        turns=len(turns.ours),
        work=Work(flops=flops, dtype=case.half),
        memory=memory,
        note=f"{1000 * turns.seconds / steps:.1f} ms a step"
        + ("; bare pads to 77 tokens" if bare else ""),
    )


class BareSteps:
    """The same step on open_clip's own modules, captions padded to the context."""

    def __init__(
        self,
        encoder: OpenClipEncoder,
        training: LinCirTraining,
        rows: Sequence[TrainingRow],
        batch: int,
    ) -> None:
        """Start at the weights that the run has now; one batch lies ready on the device."""
        model: Any = encoder.model
        self._text = getattr(model, "text", model)
        self.module: nn.Module = new_module(training.shape).to(training.tower.positional.device)
        self.module.load_state_dict(training.module.state_dict())
        config = training.config
        self._optimizer = torch.optim.AdamW(
            self.module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        device, length = training.tower.positional.device, training.tower.tokens.context_length
        self._ids = torch.zeros(batch, length, dtype=torch.long)
        self._holes = torch.zeros(batch, length, dtype=torch.bool)
        for number, row in enumerate(rows[:batch]):
            self._ids[number, : len(row.masked.ids)] = torch.tensor(row.masked.ids)
            self._holes[number, list(row.masked.positions)] = True
        lengths = torch.tensor([len(row.masked.ids) for row in rows[:batch]])
        self._ids, self._holes = self._ids.to(device), self._holes.to(device)
        self._last = (torch.arange(batch, device=device), (lengths - 1).to(device))
        features = training.tower.encode_rows([row.whole for row in rows[:batch]])
        self._wanted = torch.from_numpy(np.ascontiguousarray(features)).to(device)

    def __call__(self, steps: int) -> float:
        """Take steps; returns the last loss."""
        loss = torch.tensor(0.0)
        for _ in range(steps):
            factor = torch.rand(len(self._wanted), 1, device=self._wanted.device)
            noisy = self._wanted + factor * torch.randn_like(self._wanted)
            loss = self.loss(self.module(noisy))
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
        return float(loss.detach())

    def loss(self, tokens: torch.Tensor) -> torch.Tensor:
        """Mean squared error of the masked captions' features, given pseudo tokens (B, W)."""
        text = self._text
        dtype = text.transformer.get_cast_dtype()
        x = text.token_embedding(self._ids).to(dtype)
        x = torch.where(self._holes[..., None], tokens.to(dtype)[:, None], x)
        x = x + text.positional_embedding.to(dtype)
        x = text.transformer(x, attn_mask=text.attn_mask)
        found = text.ln_final(x[self._last]) @ text.text_projection
        return functional.mse_loss(found.float(), self._wanted)
