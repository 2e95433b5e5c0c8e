"""What is asked of `rerun-backbone` and `evaluate-matrix`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from flows.form_fields import Values
from flows.forms import (
    PROFILE_CAPTIONING,
    PROFILE_WORK,
    Backbone,
    BenchmarkChoice,
    Captioning,
    Methods,
    Overrides,
    ProfileName,
    Work,
    with_choices,
)
from flows.profiles import resolve_profile
from flows.requests.checks import (
    out_folder,
    require_collections,
    require_evaluation,
    require_out,
    require_pseudo_tokens,
)
from flows.requests.combinations import (
    NOTHING,
    ONLY,
    Combination,
    NetworkPlan,
    Vary,
    combinations,
)
from models.retrieval.methods import method, needs
from tasks.artifact_keys import artifact_key
from tasks.methods import left_out, runnable_methods
from tasks.query_sets import BenchmarkRef
from tasks.settings import Profile
from tasks.training.caption_files import read_captions

LINCIR = "mapping:lincir"


@dataclass(frozen=True)
class MappingPlan:
    """How a mapping network is trained where a backbone has none.

    Attributes:
        captions: Text or Parquet file of captions, or the name of a captioned collection.
        steps: Optimiser steps.
    """

    captions: str
    steps: int


@dataclass(frozen=True)
class RerunRequest:
    """An evaluation on one backbone.

    Attributes:
        profile: Engines and settings, the backbone's choices included.
        backbone: The backbone as it was given.
        choices: The benchmarks as they were given.
        refs: The benchmarks.
        methods: Names of methods.
        left_out: Where no methods were named: those that cannot run, each with its reason.
        mapping: How a mapping network is trained first; None where none is needed.
        network: The reformulation network that is trained first; None where none is.
        varied: What tells the evaluation from others on its backbone, in words; often empty.
        out: Folder for the report and the submission files; empty: out/rerun, in the UI a folder
            of the run's own below it.
    """

    profile: Profile
    backbone: Backbone
    choices: tuple[BenchmarkChoice, ...]
    refs: tuple[BenchmarkRef, ...]
    methods: tuple[str, ...]
    left_out: Mapping[str, str]
    mapping: MappingPlan | None
    out: Path
    network: NetworkPlan | None = None
    varied: str = ""

    def with_mapping(self, checkpoint: str) -> RerunRequest:
        """The same with a mapping network for the backbone."""
        own = self.profile.mapping.changed(checkpoint=checkpoint)
        return replace(self, profile=self.profile.changed(mapping=own))

    def with_network(self, checkpoint: str) -> RerunRequest:
        """The same with a reformulation network."""
        own = self.profile.instructcir.changed(checkpoint=checkpoint)
        return replace(self, profile=self.profile.changed(instructcir=own))


def rerun_backbone(
    backbone: Backbone,
    benchmarks: list[BenchmarkChoice],
    methods: Methods = (),
    captioning: Captioning = PROFILE_CAPTIONING,
    mapping_captions: str = "",
    mapping_steps: Annotated[int, Field(ge=1)] = 20_000,
    work: Work = PROFILE_WORK,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    out: str = "",
) -> RerunRequest:
    """Score methods on benchmarks with another CLIP backbone.

    Where no methods are named, all that can run do; the result lists the others with the reason.

    Args:
        backbone: The CLIP to evaluate.
        benchmarks: The benchmarks to score on.
        mapping_captions: Captions that a mapping network for this backbone is trained on, if a
            method needs one: a text or Parquet file, or the name of a captioned collection.
        mapping_steps: Optimiser steps of that training.
        out: Folder for the report and the submission files; empty: out/rerun, in the UI a folder
            of the run's own below it.
    """
    plan = MappingPlan(mapping_captions, mapping_steps)
    chosen = with_choices(settings, captioning, work)
    return _request(
        backbone, benchmarks, methods, plan, profile, chosen, out_folder(out, "out/rerun")
    )


def evaluate_matrix(
    backbones: list[Backbone],
    benchmarks: list[BenchmarkChoice],
    methods: Methods = (),
    captioning: Captioning = PROFILE_CAPTIONING,
    mapping_captions: str = "",
    mapping_steps: Annotated[int, Field(ge=1)] = 20_000,
    work: Work = PROFILE_WORK,
    vary: Vary = NOTHING,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    out: str = "",
) -> tuple[RerunRequest, ...]:
    """Score every method on every benchmark with every backbone, and every combination of choices.

    Where no methods are named, all that can run do; the result lists the others with the reason.

    Args:
        backbones: The CLIPs to evaluate, one after the other.
        benchmarks: The benchmarks to score on.
        mapping_captions: Captions that mapping networks are trained on, where a backbone needs
            one: a text or Parquet file, or the name of a captioned collection.
        mapping_steps: Optimiser steps of that training.
        vary: Lists of text generators, captioners, numbers of captions, prompts, and networks or
            sets of triplets to train them on. Combinations share what they have in common: captions
            of one captioner are made once.
        out: Folder for the reports, one below it per backbone and combination; empty: out/matrix,
            in the UI a folder of the run's own below it.
    """
    if not backbones:
        raise ValueError('name at least one backbone: backbones=\'[{"name": "ViT-B-32", ...}]\'')
    plan = MappingPlan(mapping_captions, mapping_steps)
    place = out_folder(out, "out/matrix")
    chosen = with_choices(settings, captioning, work)
    base = resolve_profile(profile, chosen)
    families = {choice.ref(base).load().family for choice in benchmarks}
    if any(own in backbones[:place] for place, own in enumerate(backbones)):
        raise ValueError("backbones has one twice: leave one out")
    return _apart(
        _request(
            backbone,
            benchmarks,
            methods,
            plan,
            profile,
            chosen,
            place / artifact_key(backbone.name or profile, backbone.pretrained),
            combination,
        )
        for backbone in backbones
        for combination in combinations(vary, sorted(families))
    )


def _apart(requests: Iterable[RerunRequest]) -> tuple[RerunRequest, ...]:
    """The same with a folder for each: names of folders have fewer characters than choices."""
    found: dict[Path, RerunRequest] = {}
    for each in requests:
        out, number = each.out, 1
        while out in found:
            number += 1
            out = each.out.with_name(f"{each.out.name}-{number}")
        found[out] = replace(each, out=out)
    return tuple(found.values())


def _request(
    backbone: Backbone,
    benchmarks: Sequence[BenchmarkChoice],
    methods: Sequence[str],
    mapping: MappingPlan,
    profile: str,
    settings: Values,
    out: Path,
    combination: Combination = ONLY,
) -> RerunRequest:
    """The evaluation on one backbone, with one combination of what is varied.

    Raises:
        ValueError: there are no benchmarks, or a method that was named needs a mapping network and
            no captions to train it on are named.
    """
    if not benchmarks:
        raise ValueError(
            'name at least one benchmark: benchmarks=\'[{"name": "cirr", "folder": "DIR"}]\''
        )
    chosen = resolve_profile(profile, {**with_choices(settings, backbone), **combination.settings})
    if combination.name:
        out = out / artifact_key(combination.name)
    trains_network = combination.network is not None
    refs = tuple(choice.ref(chosen) for choice in benchmarks)
    families = {ref.load().family for ref in refs}
    asked = tuple(methods) or tuple(runnable_methods(chosen, trains_network))
    out_of_reach = {} if methods else left_out(chosen, trains_network)
    needing = [m for m in asked if any(LINCIR in needs(method(m), family) for family in families)]
    trains = bool(backbone.name and not backbone.mapping and needing)
    if trains:
        require_pseudo_tokens(chosen)
    if trains and not mapping.captions:
        why = (
            f"a mapping network for {backbone.name} is missing: name one (backbone.mapping), or "
            "captions to train it on (mapping_captions: a text or Parquet file, or a captioned "
            "collection)"
        )
        if methods:
            raise ValueError(f"{why}, or choose other methods than {', '.join(needing)}")
        asked = tuple(m for m in asked if m not in needing)
        out_of_reach |= dict.fromkeys(needing, why)
        trains = False
    if trains:
        _require_captions(chosen, mapping.captions)
    require_evaluation(
        chosen,
        refs,
        asked,
        trains_mapping=trains,
        trains_network=trains_network,
        varied=bool(combination.name),
    )
    require_out(out)
    return RerunRequest(
        chosen,
        backbone,
        tuple(benchmarks),
        refs,
        asked,
        out_of_reach,
        mapping if trains else None,
        out,
        combination.network,
        combination.name,
    )


def _require_captions(profile: Profile, given: str) -> None:
    """Refuse captions that are neither a readable file nor a collection."""
    if Path(given).is_file() or Path(given).suffix in (".txt", ".parquet"):
        read_captions(given)
    else:
        require_collections(profile.root, [given])
