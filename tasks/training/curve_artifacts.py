"""The curves of a training in Prefect's UI, where a task runs."""

from __future__ import annotations

from collections.abc import Sequence

from prefect.context import TaskRunContext

from tasks.artifact_keys import artifact_key
from tasks.artifacts import publish_markdown
from tasks.report.charts import chart_markdown
from tasks.report.markdown import plain
from tasks.training.curves import history_charts, history_in_words, loss_chart, validation_table
from tasks.training.folder import History


def show_curves(key: str, title: str, history: History, place: str) -> None:
    """Leave the curves and validations of a training that logs its history.

    Args:
        key: What was trained, by content.
        title: In words.
        history: What was logged and validated.
        place: Where the result is published.
    """
    if TaskRunContext.get() is None:
        return
    pictures = "\n\n".join(chart_markdown(chart) for chart in history_charts(history))
    head = f"# {plain(title)}\n\n{history_in_words(history)}\n\n{plain(place)}"
    text = f"{head}\n\n{validation_table(history)}\n{pictures}\n"
    publish_markdown(f"curves-{key}", text, "curves of the training")


def show_losses(key: str, title: str, first_step: int, losses: Sequence[float], place: str) -> None:
    """Leave the loss curve of a training.

    Args:
        key: What was trained, by content.
        title: In words.
        first_step: Step of the first loss: a resumed training knows later ones only.
        losses: One for each step.
        place: Where the result is published.
    """
    if not losses or TaskRunContext.get() is None:
        return
    said = f"Step {first_step + len(losses) - 1:,}, loss {losses[-1]:.4g}."
    drawn = chart_markdown(loss_chart(first_step, losses))
    text = f"# {plain(title)}\n\n{said}\n\n{plain(place)}\n\n{drawn}\n"
    publish_markdown(artifact_key("curves", key), text, f"curves: {title}")
