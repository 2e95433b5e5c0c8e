"""The loss of a training as a curve in Prefect's UI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from prefect.context import TaskRunContext

from tasks.artifacts import artifact_key, publish_markdown
from tasks.training.curves import Line, Plot, plot_markdown

POINTS: Final = 100
"""Points of a curve at most; each is the mean over its stretch of steps."""


def show_losses(key: str, title: str, first_step: int, losses: Sequence[float], place: str) -> None:
    """Leave the curve of a training, where a task runs.

    Args:
        key: What was trained, by content.
        title: In words.
        first_step: Step of the first loss: a training that goes on knows later ones only.
        losses: One for each step.
        place: Where the result is published.
    """
    if not losses or TaskRunContext.get() is None:
        return
    plot = Plot("Training loss", (Line("loss", loss_points(first_step, losses)),))
    said = f"Step {first_step + len(losses) - 1:,}, loss {losses[-1]:.4g}."
    text = f"# {title}\n\n{said}\n\n`{place}`\n\n{plot_markdown(plot)}\n"
    publish_markdown(artifact_key("curves", key), text, f"curves: {title}")


def loss_points(first_step: int, losses: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """Last step and mean loss of each of at most `POINTS` stretches of equal length."""
    stretches = np.array_split(np.asarray(losses, np.float64), min(POINTS, len(losses)))
    ends = first_step - 1 + np.cumsum([len(part) for part in stretches])
    return tuple(
        (float(end), float(part.mean())) for end, part in zip(ends, stretches, strict=True)
    )
