"""The records next to a trained network: its model card, its curves, and what it cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from models.settings import Settings
from tasks.training.curves import curves_csv, curves_page, validation_table
from tasks.training.folder import History
from tasks.training.spent import FILE
from tasks.training.triplet_sets import TripletSet

if TYPE_CHECKING:
    from models.training.triplet_data import TripletData

NOT_ZERO_SHOT = "**Not zero-shot**: {}. Do not compare its results with zero-shot ones."


class TripletJob(Protocol):
    """A training on triplets."""

    @property
    def spec(self) -> dict[str, Any]:
        """The identity of the result."""

    @property
    def triplets(self) -> TripletSet:
        """What it is trained on."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model card says besides the course of the training.

    Attributes:
        title: System and key.
        purpose: What the network does.
        base: Identity of the backbone.
        triplets: What it was trained on.
        groups: Settings by the name of their group; None where a part was left out.
        notes: Further facts by name.
        not_zero_shot: Why results must not be called zero-shot; empty where they may be.
        second_stage: Numbers of InstructCIR's combiner, where there is one.
    """

    title: str
    purpose: str
    base: Mapping[str, Any]
    triplets: TripletSet
    groups: Mapping[str, Settings | None]
    notes: Mapping[str, Any]
    not_zero_shot: str
    second_stage: Mapping[str, Any] = field(default_factory=dict)


def summary_of(key: str, data: TripletData, history: History) -> dict[str, Any]:
    """Numbers of a training on triplets."""
    kept_step = int(history.kept["step"])
    validation = next((v for v in history.validations if v["step"] == kept_step), {})
    return {
        "key": key,
        "step": kept_step,
        "steps": int(history.points[-1]["step"]),
        "triplets": len(data.training.triplets),
        "validation_triplets": len(data.validation.triplets),
        "skipped_triplets": data.skipped,
        "unreadable_images": len(data.left_out),
        "validation": validation,
    }


def provenance_of(
    job: TripletJob, notes: Mapping[str, Any], summary: Mapping[str, Any], not_zero_shot: str
) -> dict[str, Any]:
    """How a network came to be, as its configuration records it.

    Args:
        job: Identity and triplets of the training.
        notes: Further facts by name.
        summary: Numbers of the training.
        not_zero_shot: Why results must not be called zero-shot; empty where they may be.
    """
    return {
        "spec": job.spec,
        "triplets": job.triplets.model_dump(mode="json", exclude={"root"}),
        "triplets_spec": dict(job.triplets.table().spec),
        "zero_shot": not not_zero_shot,
        "zero_shot_reason": not_zero_shot,
        "notes": notes,
        "summary": summary,
    }


def write_records(
    folder: Path, card: Card, history: History, summary: Mapping[str, Any], spent: bytes
) -> None:
    """Write card, curves and cost into a folder before it is published."""
    (folder / "curves.csv").write_text(curves_csv(history), encoding="utf-8")
    (folder / "curves.html").write_text(curves_page(card.title, history), encoding="utf-8")
    (folder / FILE).write_bytes(spent)
    (folder / "README.md").write_text(model_card(card, history, summary), encoding="utf-8")


def model_card(card: Card, history: History, summary: Mapping[str, Any]) -> str:
    """The README of a published network."""
    base, made = card.base, card.triplets.table().spec
    foreign = {"imported", "benchmark"} & made.keys()
    origin = str(made["generator"]["model"]) if foreign else "generated"
    training = card.groups["training"]
    keep = "" if training is None else f" ({training.model_dump()['keep']})"
    lines = [
        f"# {card.title}",
        "",
        f"{card.purpose} Every choice that its paper leaves open is listed below with its value.",
        "",
        *([NOT_ZERO_SHOT.format(card.not_zero_shot), ""] if card.not_zero_shot else []),
        "| | |",
        "|---|---|",
        f"| backbone | {base['model']} {base['pretrained']} |",
        f"| weights of the backbone | sha256 {str(base['weights_sha256'])[:16]} |",
        f"| triplets | {summary['triplets']:,} of table `{card.triplets.spec_key}` (first "
        f"{card.triplets.count:,} pairs), {origin} |",
        f"| collections | {', '.join(card.triplets.collections)} |",
        f"| held out | {summary['validation_triplets']:,} triplets without an image of the "
        "others; no split of a benchmark that is evaluated was used |",
        f"| left out | {summary['skipped_triplets']:,} triplets with unreadable images |",
        f"| weights of step | {summary['step']:,} of {summary['steps']:,}{keep} |",
        *(f"| {name.replace('_', ' ')} | {value} |" for name, value in card.notes.items()),
        "",
        "## Validation",
        "",
        "Recall in percent among all held-out targets.",
        "",
        validation_table(history),
        *_second_stage(card.second_stage),
        "## Settings",
        "",
    ]
    for name, group in card.groups.items():
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
