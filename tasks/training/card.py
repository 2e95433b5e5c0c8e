"""The records next to a trained network: its model card, its curves, and what it cost."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.settings import Settings
from models.spelling import counted
from tasks.networks import why_not_zero_shot
from tasks.training.curve_artifacts import show_curves
from tasks.training.curves import curves_csv, curves_page, validation_table
from tasks.training.folder import History
from tasks.training.publish import publish
from tasks.training.spent import FILE
from tasks.training.triplet_job import TripletJob

NOT_ZERO_SHOT = "**Not zero-shot**: {}. Do not compare its results with zero-shot ones."


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model card says besides the course of the training.

    Attributes:
        title: System and key.
        purpose: What the network does.
        base: Identity of the backbone.
        groups: Settings by the name of their group; None where a part was left out.
        second_stage: Numbers of InstructCIR's combiner, where there is one.
    """

    title: str
    purpose: str
    base: Mapping[str, Any]
    groups: Mapping[str, Settings | None]
    second_stage: Mapping[str, Any] = field(default_factory=dict)


def publish_network(
    job: TripletJob,
    save: Callable[[Path, Mapping[str, Any]], None],
    card: Card,
    history: History,
    *,
    summary: Mapping[str, Any],
    notes: Mapping[str, Any],
    not_zero_shot: str,
    spent: bytes,
) -> None:
    """Publish a network with its card, curves and cost; its configuration comes last.

    Args:
        job: The training.
        save: Writes the network into a new folder, with its provenance.
        card: What the model card says.
        history: The course of the training.
        summary: Its numbers; see `summary_of`.
        notes: Further facts by name.
        not_zero_shot: Why results must not be called zero-shot; empty where they may be.
        spent: What it cost; see `spent.cost_file`.
    """
    provenance = {
        "spec": job.spec,
        "triplets": job.triplets.model_dump(mode="json", exclude={"root"}),
        "triplets_spec": dict(job.triplets.table().spec),
        "zero_shot": not not_zero_shot,
        "zero_shot_reason": not_zero_shot,
        "notes": notes,
        "summary": summary,
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, job.key)
        save(folder, provenance)
        (folder / "curves.csv").write_text(curves_csv(history), encoding="utf-8")
        (folder / "curves.html").write_text(curves_page(card.title, history), encoding="utf-8")
        (folder / FILE).write_bytes(spent)
        (folder / "README.md").write_text(model_card(card, provenance, history), encoding="utf-8")
        publish(job, {path.name: path for path in folder.iterdir()})
    show_curves(job.key, card.title, history, job.place)


def summary_of(
    key: str,
    history: History,
    *,
    triplets: int,
    held_out: int,
    skipped: int,
    unreadable: int,
) -> dict[str, Any]:
    """Numbers of a training on triplets.

    Args:
        key: Of the result.
        history: The course of the training.
        triplets: Triplets that were trained on.
        held_out: Triplets that validated.
        skipped: Triplets left out because of images that cannot be read.
        unreadable: Those images.
    """
    return {
        "key": key,
        **history.summary,
        "triplets": triplets,
        "validation_triplets": held_out,
        "skipped_triplets": skipped,
        "unreadable_images": unreadable,
    }


def model_card(card: Card, provenance: Mapping[str, Any], history: History) -> str:
    """The README of a network that was trained on triplets."""
    made, triplets = provenance["triplets_spec"], provenance["triplets"]
    summary = provenance["summary"]
    foreign = {"imported", "benchmark"} & made.keys()
    origin = str(made["generator"]["model"]) if foreign else "generated"
    training = card.groups["training"]
    keep = "" if training is None else f" ({training.model_dump()['keep']})"
    rows = {
        **backbone_rows(card.base),
        "triplets": f"{summary['triplets']:,} of table `{triplets['spec_key']}` (first "
        f"{counted(triplets['count'], 'pair')}), {origin}",
        "collections": ", ".join(triplets["collections"]),
        "held out": f"{counted(summary['validation_triplets'], 'triplet')} without an image of "
        "the others; no split of a benchmark that is evaluated was used",
        "left out": f"{counted(summary['skipped_triplets'], 'triplet')} with unreadable images",
        "weights of step": f"{summary['step']:,} of {summary['steps']:,}{keep}",
        **{name.replace("_", " "): str(value) for name, value in provenance["notes"].items()},
    }
    return card_text(
        card,
        rows,
        history,
        measured="Recall in percent among all held-out targets.",
        not_zero_shot=why_not_zero_shot(provenance),
    )


def backbone_rows(base: Mapping[str, Any]) -> dict[str, str]:
    """What a card says of the backbone, from its identity."""
    return {
        "backbone": f"{base['model']} {base['pretrained']}",
        "weights of the backbone": f"sha256 {str(base['weights_sha256'])[:16]}",
    }


def card_text(
    card: Card,
    rows: Mapping[str, str],
    history: History,
    *,
    measured: str,
    not_zero_shot: str,
) -> str:
    """The README of any trained network.

    Args:
        card: Title, purpose and settings.
        rows: What it was trained on, by name.
        history: The course of the training.
        measured: What the validation measures are.
        not_zero_shot: Why results must not be called zero-shot; empty where they may be.
    """
    lines = [
        f"# {card.title}",
        "",
        f"{card.purpose} Every choice that its paper leaves open is listed below with its value.",
        "",
        *([NOT_ZERO_SHOT.format(not_zero_shot), ""] if not_zero_shot else []),
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
        "",
        "## Validation",
        "",
        measured,
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
