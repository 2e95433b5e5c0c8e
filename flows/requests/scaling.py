"""What is asked of `scaling`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from flows.form_fields import Values
from flows.forms import BenchmarkChoice, MethodName, Overrides, ProfileName
from flows.profiles import resolve_profile
from flows.requests.checks import out_folder, require_evaluation, require_out
from flows.requests.train_reformulation import groups_of
from flows.requests.triplet_training import triplet_set_of
from tasks.query_sets import BenchmarkRef
from tasks.settings import Profile

if TYPE_CHECKING:
    from tasks.training.triplet_sets import TripletSet

LeftOut = Literal[
    "cross-attention", "ema", "predictor", "text tower training", "all but the original CLIP"
]

WITHOUT: Mapping[LeftOut, dict[str, Values]] = {
    "cross-attention": {"network": {"cross_attended_blocks": 0}},
    "ema": {"ema": {"enabled": False}},
    "predictor": {"network": {"predictor": False}},
    "text tower training": {"network": {"text_tower": "frozen"}},
    "all but the original CLIP": {
        "network": {"cross_attended_blocks": 0, "predictor": False},
        "ema": {"enabled": False},
    },
}
"""The settings that an ablation changes. Table V has the one without EMA, and the original CLIP:
both towers trained just as long, and the sum of their embeddings as the query."""


@dataclass(frozen=True)
class Variant:
    """One network to train.

    Attributes:
        triplets: pairs of the sample that it sees.
        without: the part that is left out; empty for the whole network.
        source: name of the other set of triplets that it sees; empty for the given set.
    """

    triplets: int
    without: LeftOut | Literal[""] = ""
    source: str = ""

    @property
    def change(self) -> str:
        """What tells it from the whole network of its size; empty for that one."""
        return f"without {self.without}" if self.without else self.source and f"on {self.source}"

    @property
    def name(self) -> str:
        """Its name in tables."""
        return f"{self.triplets:,} {self.change}".strip()


@dataclass(frozen=True)
class DrawnWorlds:
    """Embedded worlds to score on: their seeds, and the queries in each."""

    seeds: tuple[int, ...]
    subsets: int
    circo_queries: int
    fashion_queries: int


@dataclass(frozen=True)
class ScalingRequest:
    """Networks to train on nested sets, and to score.

    Attributes:
        profile: Engines and settings.
        triplets: The largest set.
        other_triplets: Other sets to compare it with, by name.
        variants: The networks.
        refs: Benchmarks to score on, before those of the worlds.
        worlds: Drawn worlds to score on.
        others: Further methods to score.
        method: The method of InstructCIR that is scored.
        training: Groups of settings that all networks share.
        folder: Folder for worlds, page and numbers.
    """

    profile: Profile
    triplets: TripletSet
    other_triplets: Mapping[str, TripletSet]
    variants: tuple[Variant, ...]
    refs: tuple[BenchmarkRef, ...]
    worlds: DrawnWorlds
    others: tuple[str, ...]
    method: str
    training: Values
    folder: Path


def scaling(
    triplets: str | Values,
    sizes: list[Annotated[int, Field(ge=1)]],
    without: list[LeftOut] | None = None,
    other_triplets: dict[str, str | Values] | None = None,
    benchmarks: list[BenchmarkChoice] | None = None,
    seeds: list[int] | None = None,
    others: tuple[MethodName, ...] = (),
    method: Literal["instructcir", "instructcir-no-combiner", "instructcir-ema"] = "instructcir",
    training: Values | None = None,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    subsets: Annotated[int, Field(ge=1)] = 250,
    circo_queries: Annotated[int, Field(ge=1)] = 300,
    fashion_queries: Annotated[int, Field(ge=1)] = 100,
    out: str = "",
) -> ScalingRequest:
    """Train InstructCIR on sets of several sizes, score each network, and plot the curve.

    Published networks are reused, so that a larger size can be added later.

    Args:
        triplets: The file triplets.json that generate-triplets wrote, or its content.
        sizes: Numbers of pairs; each set is the beginning of the next larger one.
        without: Also train the largest set without these parts.
        other_triplets: Name -> other sets of triplets, as for `triplets`. A network is trained on
            the first pairs of each, as many as the largest size, and compared with that size's.
        benchmarks: Benchmarks to score on; none: drawn worlds of the seeds.
        seeds: Seeds of drawn worlds to score on; none: the benchmarks alone.
        others: Other methods to draw as lines, e.g. image-text-sum, lincir, cvsi.
        method: The method of InstructCIR that is scored.
        training: Groups of train-reformulation's settings that all networks share, e.g.
            {"training": {"epochs": 6}, "loss": {"temperature": 0.03}}; also network, ema,
            combiner and run.
        subsets: CIRR-like groups of six in each drawn world; each gives two queries.
        circo_queries: CIRCO-like queries in each drawn world.
        fashion_queries: FashionIQ-like queries per category in each drawn world.
        out: Folder for drawn worlds, the page and the numbers; empty: out/scaling, in the UI a
            folder of the run's own below it.
    """
    chosen = resolve_profile(profile, settings)
    if not (benchmarks or seeds) or not sizes:
        raise ValueError("give at least one size, and benchmarks or seeds of drawn worlds")
    groups_of(training or {})
    refs = tuple(choice.ref(chosen) for choice in benchmarks or ())
    if any(ref.texts.are_replaced for ref in refs):
        raise ValueError("curves are of the benchmarks' own texts: leave texts out of benchmarks")
    require_evaluation(chosen, refs, others)
    found = triplet_set_of(triplets, chosen)
    variants = [Variant(n) for n in sorted(set(sizes))]
    variants += [Variant(max(sizes), part) for part in without or []]
    others_found = {
        name: triplet_set_of(each, chosen) for name, each in (other_triplets or {}).items()
    }
    variants += [Variant(max(sizes), source=name) for name in others_found]
    for variant in variants:
        others_found.get(variant.source, found).first(variant.triplets)
    place = out_folder(out, "out/scaling").resolve()
    require_out(place)
    worlds = DrawnWorlds(tuple(seeds or ()), subsets, circo_queries, fashion_queries)
    return ScalingRequest(
        chosen,
        found,
        others_found,
        tuple(variants),
        refs,
        worlds,
        others,
        method,
        training or {},
        place,
    )
