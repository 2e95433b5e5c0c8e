"""The training loop of all recipes: steps, checkpoints, progress lines.

The data of step k depends on (settings, k) only, so a run that is killed and resumed sees the same
batches as one that was never stopped.
"""

import io
import json
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """Learning rate over steps: linear warm-up, constant, then linear to `floor` times `rate`.

    Attributes:
        steps: Length of the run.
        rate: Highest learning rate.
        warm_up: Steps of linear warm-up.
        hold: Share of the run after which the decay starts.
        floor: Last rate as a share of `rate`.
    """

    steps: int
    rate: float
    warm_up: int = 60
    hold: float = 0.5
    floor: float = 0.02

    def at(self, step: int) -> float:
        """Learning rate of one step, counted from 0."""
        done = step / self.steps
        decay = 1.0 if done < self.hold else (1 - done) / (1 - self.hold)
        return self.rate * min(1.0, (step + 1) / self.warm_up) * max(self.floor, decay)


def streams(seed: int, step: int) -> tuple[Random, np.random.Generator]:
    """Randomness of one step: for scenes and words, and for drawing."""
    return Random(f"{seed}/{step}"), np.random.default_rng([seed, step])


class Learner(Protocol):
    """Something that is trained step by step."""

    @property
    def step(self) -> int:
        """Steps taken."""

    @property
    def steps(self) -> int:
        """Steps of the whole run."""

    def advance(self) -> Mapping[str, float]:
        """Take one step; its losses by name."""

    def look(self) -> str:
        """One line about the learner as it is; empty where there is nothing to show."""

    def save(self) -> bytes:
        """Everything that later steps depend on."""

    def load(self, data: bytes) -> None:
        """Continue from saved data."""


class TrainingRun:
    """A resumable run of a learner, and its cost so far."""

    def __init__(self, learner: Learner, folder: Path, settings: Mapping[str, object]) -> None:
        """Continue from the checkpoint in a folder where there is one.

        Args:
            learner: The learner at step 0.
            folder: Where checkpoints are written.
            settings: Settings of the run, in types that JSON knows.

        Raises:
            ValueError: The checkpoint was written under other settings.
        """
        self.learner = learner
        self.settings = json.loads(json.dumps(settings))
        self.cpu_seconds = 0.0
        self._checkpoint = folder / "checkpoint.pt"
        folder.mkdir(parents=True, exist_ok=True)
        if self._checkpoint.exists():
            self._resume()

    def _resume(self) -> None:
        state = unpacked(self._checkpoint.read_bytes())
        theirs, ours = state["settings"], self.settings
        if theirs != ours:
            names = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
            other = {name: (theirs.get(name), ours.get(name)) for name in names}
            raise ValueError(
                f"{self._checkpoint} has other settings (theirs, ours): {other}; give the "
                "checkpoint's settings, or another folder"
            )
        self.learner.load(state["learner"])
        self.cpu_seconds = state["cpu_seconds"]
        print(f"resumed at step {self.learner.step}", flush=True)

    def finish(self, *, save_every: int = 100, look_every: int = 500) -> None:
        """Take the steps that are left.

        Args:
            save_every: Steps between checkpoints and progress lines.
            look_every: Steps between looks at the learner, whose cost is not counted.
        """
        learner = self.learner
        recent: deque[Mapping[str, float]] = deque(maxlen=50)
        while learner.step < learner.steps:
            started = time.process_time()
            recent.append(learner.advance())
            self.cpu_seconds += time.process_time() - started
            if learner.step % save_every == 0:
                print(self._line(recent), flush=True)
                self.save()
            if learner.step % look_every == 0 and (line := learner.look()):
                print(f"  held out: {line}", flush=True)
        self.save()

    def save(self) -> None:
        """Replace the checkpoint in one move."""
        data = packed(
            settings=self.settings, cpu_seconds=self.cpu_seconds, learner=self.learner.save()
        )
        partial = self._checkpoint.with_suffix(".partial")
        partial.write_bytes(data)
        os.replace(partial, self._checkpoint)

    def _line(self, recent: Sequence[Mapping[str, float]]) -> str:
        means = {
            name: np.mean([losses[name] for losses in recent if name in losses])
            for name in recent[-1]
        }
        shown = " ".join(f"{name} {mean:.3g}" for name, mean in means.items())
        step, steps = self.learner.step, self.learner.steps
        left = self.cpu_seconds / step * (steps - step)
        return f"step {step}/{steps} cpu {self.cpu_seconds:.0f}s left {left:.0f}s | {shown}"


class AdamWLearner:
    """A module trained by AdamW under a schedule; vectors and scalars do not decay."""

    def __init__(
        self,
        module: nn.Module,
        schedule: Schedule,
        *,
        weight_decay: float,
        losses: Callable[[int], Mapping[str, Tensor]],
        look: Callable[[], str],
    ) -> None:
        """Prepare step 0.

        Args:
            module: Trained in place, where its parameters require gradients.
            schedule: Learning rate and number of steps.
            weight_decay: Of matrices.
            losses: Losses of one step by name; their sum is minimised.
            look: One line about the module in evaluation mode.
        """
        self.module = module.train()
        self.schedule = schedule
        self.step = 0
        self._losses = losses
        self._look = look
        self._trained = [p for p in module.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in self._trained if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in self._trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        self._optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98))

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.schedule.steps

    def advance(self) -> Mapping[str, float]:
        """Take one step; its losses by name."""
        for group in self._optimiser.param_groups:
            group["lr"] = self.schedule.at(self.step)
        parts = self._losses(self.step)
        self._optimiser.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()
        nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._optimiser.step()
        self.step += 1
        return {name: float(loss.detach()) for name, loss in parts.items()}

    @torch.no_grad()
    def look(self) -> str:
        """One line about the module as it is."""
        self.module.eval()
        line = self._look()
        self.module.train()
        return line

    def save(self) -> bytes:
        """Weights, optimiser and step."""
        return packed(
            step=self.step,
            module=self.module.state_dict(),
            optimiser=self._optimiser.state_dict(),
        )

    def load(self, data: bytes) -> None:
        """Continue from saved data."""
        state = unpacked(data)
        self.module.load_state_dict(state["module"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]


def packed(**state: object) -> bytes:
    """Tensors, bytes and plain values in one piece."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def unpacked(data: bytes) -> dict[str, Any]:
    """The state that `packed` was given, read with `weights_only`."""
    state: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
    return state


def half_precision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they are shipped: floats in fp16, contiguous."""
    return {
        name: (t.half() if t.is_floating_point() else t).contiguous() for name, t in state.items()
    }
