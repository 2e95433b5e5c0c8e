"""What is asked of `train-weights`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from flows.form_fields import DEFAULTS, Group, OneOf, Values
from flows.forms import PROFILE_CLIP, Clip, Overrides, ProfileName, with_choices
from flows.profiles import resolve_profile
from flows.requests.checks import require_collections, require_methods, require_root
from flows.requests.triplet_training import First, triplet_set_of
from models.retrieval.gate_settings import GateTraining
from models.retrieval.systems.query_weights import WEIGHED
from models.spelling import unknown
from tasks.methods import why_not_ready
from tasks.settings import Profile

if TYPE_CHECKING:
    from tasks.training.triplet_sets import TripletSet

WEIGHED_METHOD = OneOf("method", WEIGHED)


@dataclass(frozen=True)
class WeightsRequest:
    """Gates to train.

    Attributes:
        profile: Models, and where the gates are published.
        triplets: What is learned from.
        method: Whose parts are weighed.
        families: Benchmark families, each with a gate of its own.
        training: How.
        not_zero_shot: Why results must be labelled; empty where they need no label.
    """

    profile: Profile
    triplets: TripletSet
    method: str
    families: tuple[str, ...]
    training: GateTraining
    not_zero_shot: str


def train_weights(
    triplets: str | Values,
    method: Annotated[str, WEIGHED_METHOD] = "cvsi",
    backbone: Clip = PROFILE_CLIP,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    families: tuple[str, ...] = (),
    n: First = None,
    training: Annotated[Values, Group(GateTraining, "training")] = DEFAULTS,
    not_zero_shot: str = "",
) -> WeightsRequest:
    """Train weights for each query of a method on generated triplets, and publish them.

    Each triplet is a query of its own collection, whose target is known without annotation. Its
    captions, edits and features are made as those of a benchmark's queries, and cached. The gate
    then learns from signals of the query alone (margins, entropy and agreement of its parts'
    searches) which part to believe. Use the result as query_weights.METHOD=FOLDER, and score
    METHOD+weights.

    Args:
        triplets: The file triplets.json that generate-triplets wrote, or its content.
        method: The method whose query parts are weighed.
        backbone: The CLIP of images and texts.
        families: Benchmark families (their prompts, gallery weights and rule for the reference);
            empty: all that the profile has weights for.
        n: Train on the first n pairs of the sample only. Empty: all.
        training: How, e.g. {"temperature": 0.05}.
        not_zero_shot: Why results must be labelled, where the triplets owe something to a
            benchmark's annotations. A tuned rewriter brings the label itself.
    """
    chosen = resolve_profile(profile, with_choices(settings, backbone))
    if method not in WEIGHED:
        raise ValueError(unknown("method", method, WEIGHED))
    if reason := why_not_ready(method, chosen):
        raise ValueError(f"{method} does not run under this profile: {reason}")
    known = tuple(chosen.cvsi.weights)
    for family in families:
        if family not in known:
            raise ValueError(unknown("benchmark family", family, known))
    require_methods(chosen, [method], families or known)
    found = triplet_set_of(triplets, n=n)
    if found.root != chosen.root:
        raise ValueError(
            f"the triplets lie under {found.root}, the profile's root is {chosen.root}: set "
            f"root={found.root}"
        )
    require_collections(chosen.root, list(found.collections))
    require_root(chosen)
    own = GateTraining.given(training, "training")
    return WeightsRequest(chosen, found, method, families or known, own, not_zero_shot)
