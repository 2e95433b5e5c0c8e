"""What all recipes share: the schedule, the resumable loop and the record of how a model was made.

The data of step k depends on (seed, k) only, so a run that is killed and resumed sees the same
batches as an undisturbed one.
"""

import json
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor, nn

LIBRARIES = ("torch", "transformers", "open_clip_torch", "tokenizers", "safetensors", "numpy")


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


def adamw(module: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the parameters that train; vectors and scalars do not decay."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


class Training:
    """One resumable run: a module, its optimiser, how far it is and what it has cost."""

    def __init__(self, module: nn.Module, schedule: Schedule, folder: Path, weight_decay: float):
        """Continue from `folder/checkpoint.pt` where there is one."""
        self.module = module
        self.schedule = schedule
        self.optimiser = adamw(module, weight_decay)
        self.checkpoint = folder / "checkpoint.pt"
        self.step = 0
        self.cpu_seconds = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            self._load()

    def _load(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.cpu_seconds = state["step"], state["cpu_seconds"]
        print(f"resumed at step {self.step}", flush=True)

    def save(self) -> None:
        """Replace the checkpoint in one move."""
        state = {
            "module": self.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "cpu_seconds": self.cpu_seconds,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.checkpoint)

    def run(
        self,
        losses: Callable[[int], Mapping[str, Tensor]],
        evaluate: Callable[[], str],
        *,
        save_every: int = 100,
        evaluate_every: int = 500,
        seconds: float = float("inf"),
    ) -> None:
        """Take the steps that are left.

        Args:
            losses: Losses of one step by name; their sum is minimised.
            evaluate: One line about the model as it is; its cost is not counted.
            save_every: Steps between checkpoints and progress lines.
            evaluate_every: Steps between calls of `evaluate`.
            seconds: Stop after this much CPU time, for trials.
        """
        recent: deque[Mapping[str, float]] = deque(maxlen=50)
        trained = [p for p in self.module.parameters() if p.requires_grad]
        self.module.train()
        while self.step < self.schedule.steps and self.cpu_seconds < seconds:
            started = time.process_time()
            for group in self.optimiser.param_groups:
                group["lr"] = self.schedule.at(self.step)
            parts = losses(self.step)
            self.optimiser.zero_grad(set_to_none=True)
            torch.stack(list(parts.values())).sum().backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            self.optimiser.step()
            self.step += 1
            self.cpu_seconds += time.process_time() - started
            recent.append({name: float(loss.detach()) for name, loss in parts.items()})
            if self.step % save_every == 0:
                self._progress(recent)
                self.save()
            if self.step % evaluate_every == 0:
                print(f"  held out: {self._evaluated(evaluate)}", flush=True)
        self.save()

    def _progress(self, recent: Sequence[Mapping[str, float]]) -> None:
        means = {name: np.mean([loss[name] for loss in recent]) for name in recent[-1]}
        shown = " ".join(f"{name} {mean:.3f}" for name, mean in means.items())
        left = self.cpu_seconds / self.step * (self.schedule.steps - self.step)
        print(
            f"step {self.step}/{self.schedule.steps} cpu {self.cpu_seconds:.0f}s "
            f"left {left:.0f}s | {shown}",
            flush=True,
        )

    def _evaluated(self, evaluate: Callable[[], str]) -> str:
        self.module.eval()
        with torch.no_grad():
            line = evaluate()
        self.module.train()
        return line


def one_thread() -> None:
    """Use one CPU thread: small models lose by sharing their work out."""
    torch.set_num_threads(1)


def half_precision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they are shipped: floats in fp16, contiguous."""
    return {
        name: (t.half() if t.is_floating_point() else t).contiguous() for name, t in state.items()
    }


def write_recipe(
    folder: Path,
    command: str,
    *,
    steps: int,
    cpu_seconds: float,
    settings: Mapping[str, object],
    gates: Mapping[str, object],
) -> None:
    """Write `recipe.json`: how the model of this folder was made and what it reaches.

    Args:
        folder: Where the model lies.
        command: What makes it again, with DIR for folders of one's own.
        steps: Optimiser steps taken.
        cpu_seconds: What they cost.
        settings: The command's options; folders among them are left out.
        gates: What was measured on the files as they are shipped.
    """
    record = {
        "command": command,
        "settings": {k: v for k, v in settings.items() if not isinstance(v, Path)},
        "steps": steps,
        "cpu_seconds": round(cpu_seconds),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "gates": dict(gates),
    }
    (folder / "recipe.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def conclude(
    training: Training,
    folder: Path,
    command: str,
    settings: Mapping[str, object],
    measure: Callable[[], Mapping[str, object]],
) -> None:
    """Say that a model is written, measure it as it is shipped, and record how it was made.

    Args:
        training: The run that made it.
        folder: Where it lies.
        command: As for `write_recipe`.
        settings: As for `write_recipe`.
        measure: Loads the folder and measures what it holds.
    """
    print(f"wrote {folder}; {training.cpu_seconds:.0f} CPU-s", flush=True)
    write_recipe(
        folder,
        command,
        steps=training.step,
        cpu_seconds=training.cpu_seconds,
        settings=settings,
        gates=measure(),
    )
