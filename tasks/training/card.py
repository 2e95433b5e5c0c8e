"""The model card of a trained reformulation network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tasks.training.curves import validation_table
from tasks.training.folder import History
from tasks.training.job import ReformulationJob

NOT_ZERO_SHOT = "**Not zero-shot**: {}. Do not compare its results with zero-shot ones."


def model_card(
    job: ReformulationJob,
    history: History,
    summary: Mapping[str, Any],
    notes: Mapping[str, Any],
    not_zero_shot: str,
) -> str:
    """The README of a published network.

    Args:
        job: Settings and triplets of the training.
        history: How it went.
        summary: Numbers of the run.
        notes: Further facts by name.
        not_zero_shot: Why results must not be called zero-shot; empty where they may be.
    """
    base, made = job.spec["encoder"], job.triplets.table().spec
    origin = str(made["generator"]["model"]) if "imported" in made else "generated"
    lines = [
        f"# InstructCIR reformulation network {summary['key']}",
        "",
        "Embeds a reference image under a modification text; the nearest gallery embedding is "
        "the answer. Architecture and training after InstructCIR; every choice that the paper "
        "leaves open is listed below with its value.",
        "",
        *([NOT_ZERO_SHOT.format(not_zero_shot), ""] if not_zero_shot else []),
        "| | |",
        "|---|---|",
        f"| backbone | {base['model']} {base['pretrained']} |",
        f"| weights of the backbone | sha256 {str(base['weights_sha256'])[:16]} |",
        f"| triplets | {summary['triplets']:,} of table `{job.triplets.spec_key}` (first "
        f"{job.triplets.count:,} pairs), {origin} |",
        f"| collections | {', '.join(job.triplets.collections)} |",
        f"| held out | {summary['validation_triplets']:,} triplets without an image of the "
        "others; no benchmark was used |",
        f"| left out | {summary['skipped_triplets']:,} triplets with unreadable images |",
        f"| weights of step | {summary['step']:,} of {summary['steps']:,} ({job.training.keep}) |",
        *(f"| {name.replace('_', ' ')} | {value} |" for name, value in notes.items()),
        "",
        "## Validation",
        "",
        "Recall in percent among all held-out targets; `online` and `ema` are the branches that "
        "embed the query, targets are embedded by the moving average where there is one.",
        "",
        validation_table(history),
        *_second_stage(summary["combiner"]),
        "## Settings",
        "",
    ]
    for name in ("network", "loss", "ema", "combiner", "training"):
        group = getattr(job, name)
        values = None if group is None else group.model_dump()
        lines.append(f"- {name}: `{json.dumps(values)}`")
    lines += ["", "Curves: `curves.html`, `curves.csv`. Everything else: `config.json`.", ""]
    return "\n".join(lines)


def _second_stage(found: Mapping[str, Any]) -> list[str]:
    if not found:
        return []
    text = (
        f"Loss {found['first_loss']:.3f} at its first step, {found['last_loss']:.3f} at its last."
    )
    if "combined_recall_1" in found:
        text += (
            f" Held-out R@1 {100 * found['alone_recall_1']:.1f} without it, "
            f"{100 * found['combined_recall_1']:.1f} with it."
        )
    return ["## Combiner (second stage)", "", text, ""]
