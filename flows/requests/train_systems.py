"""What is asked of `train-systems`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from flows.form_fields import DEFAULTS, OneOf, Values
from flows.forms import PROFILE_CLIP, Clip, Overrides, ProfileName, with_choices
from flows.profiles import resolve_profile
from flows.requests.checks import require_backbone, require_out, require_root
from flows.requests.train_compodiff import train_compodiff
from flows.requests.train_composed import train_composed
from flows.requests.train_mapping import train_mapping
from flows.requests.triplet_training import triplet_set_of
from models.composed.registry import SYSTEMS
from models.retrieval.methods import METHODS
from models.spelling import unknown
from models.textual_inversion.learner_settings import INVERSIONS
from tasks.methods import why_not_ready
from tasks.settings import Profile

if TYPE_CHECKING:
    from tasks.training.triplet_sets import TripletSet

COMPODIFF: Final = "compodiff"
TRAINABLE: Final[Mapping[str, str]] = {
    **{name: f"mapping.{name}" for name in INVERSIONS},
    **{n: f"composed.{n}" for n, each in SYSTEMS.items() if each.build or each.starts_from != n},
    COMPODIFF: "compodiff.checkpoint",
}
"""System -> the setting of a profile that names its network. A system that goes on from its own
network alone needs a published one first."""

SYSTEM: Final = OneOf("system", tuple(TRAINABLE))


@dataclass(frozen=True)
class Wanted:
    """One training.

    Attributes:
        system: What is trained.
        start: The system that it starts from, which is trained before; empty: the backbone.
        parameters: Of its own flow: `network`, `training`, `joined`.
    """

    system: str
    start: str
    parameters: Values


@dataclass(frozen=True)
class SystemsRequest:
    """Several systems to train on the same data.

    Attributes:
        profile: Backbone and where the networks are published.
        profile_name: The profile as it was given.
        changes: The settings that it was given.
        triplets: What systems that read triplets are trained on.
        collection: Whose images the other ones learn from.
        trainings: In an order in which each finds its start.
        out: Folder for the profile file.
    """

    profile: Profile
    profile_name: str
    changes: Mapping[str, Any]
    triplets: TripletSet
    collection: str
    trainings: tuple[Wanted, ...]
    out: Path


def train_systems(
    triplets: str | Values,
    systems: list[Annotated[str, SYSTEM]] | None = None,
    collection: str = "",
    parameters: Values = DEFAULTS,
    backbone: Clip = PROFILE_CLIP,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    out: str = "out/systems",
) -> SystemsRequest:
    """Train the systems that methods are compared with, all on the same triplets and images.

    Each is published once and reused; a stopped run resumes. OUT/trained.toml is a profile that
    names them all: `cirflow paper cvsi --profile out/systems/trained.toml`.

    Args:
        triplets: The file triplets.json that generate-triplets wrote, or its content; or a
            benchmark's train split as BENCHMARK:train:FOLDER.
        systems: What is trained, and what it starts from; none: everything that can be.
        collection: Collection whose images pseudo-word systems learn from; empty: that of the
            triplets.
        parameters: System -> parameters of its own flow, e.g. {"transagg": {"training":
            {"max_steps": 750}}}; all else has the published schedule.
        out: Folder for the profile file.
    """
    changes = with_choices(settings, backbone)
    chosen = resolve_profile(profile, changes)
    for name, own in parameters.items():
        if name not in TRAINABLE:
            raise ValueError(unknown("system in parameters", name, TRAINABLE))
        allowed = ["network", "training", *([] if name in INVERSIONS else ["joined"])]
        if not isinstance(own, Mapping) or own.keys() - set(allowed):
            raise ValueError(f"parameters.{name} has {', '.join(allowed)}; given: {own!r}")
    require_backbone(chosen)
    found = triplet_set_of(triplets, chosen)
    require_out(Path(out))
    require_root(chosen)
    asked = SystemsRequest(
        profile=chosen,
        profile_name=profile,
        changes=changes,
        triplets=found,
        collection=collection or found.collections[0],
        trainings=tuple(
            Wanted(name, start, parameters.get(name, {}))
            for name, start in in_order(systems or list(TRAINABLE))
        ),
        out=Path(out),
    )
    for each in asked.trainings:
        if not each.start:
            prepared(asked, each, {})
    return asked


def untrained(profile: Profile, methods: Sequence[str]) -> tuple[str, ...]:
    """Those of the methods that can be trained and whose network the profile does not name."""
    return tuple(
        name
        for name in methods
        if name in TRAINABLE and (name not in METHODS or why_not_ready(name, profile))
    )


def in_order(systems: Sequence[str]) -> list[tuple[str, str]]:
    """Systems with what each starts from, and what they start from before them."""
    found: dict[str, str] = {}
    for name in systems:
        record = SYSTEMS.get(name)
        # One that can be built on a backbone needs no other.
        start = record.starts_from if record is not None and record.build is None else ""
        if start:
            found |= {n: s for n, s in in_order([start]) if n not in found}
        found[name] = start
    return list(found.items())


def prepared(asked: SystemsRequest, wanted: Wanted, folders: Mapping[str, str]) -> Values:
    """The checked parameters of a training's own flow.

    Args:
        asked: The whole.
        wanted: The training.
        folders: Trained systems -> their folders, its start among them.

    Raises:
        ValueError: they do not fit; the system is named.
    """
    common = {
        "profile": asked.profile_name,
        "settings": dict(asked.changes),
        **wanted.parameters,
    }
    if wanted.system in INVERSIONS:
        values = {"system": wanted.system, "collection": asked.collection, **common}
        check: Any = train_mapping
    else:
        values = {"triplets": asked.triplets.model_dump(mode="json"), **common}
        check = train_compodiff
        if wanted.system != COMPODIFF:
            values |= {"system": wanted.system, "start": folders.get(wanted.start, "")}
            check = train_composed
    try:
        check(**values)
    except ValueError as error:
        raise ValueError(f"{wanted.system}: {error}") from error
    return values
