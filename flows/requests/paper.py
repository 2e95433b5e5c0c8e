"""What is asked of `paper`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Literal

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
from flows.profiles import EMBEDDED, resolve_profile
from flows.requests.checks import (
    out_folder,
    require_methods,
    require_out,
    require_root,
    require_texts,
)
from flows.requests.rerun_backbones import LINCIR, RerunRequest, evaluate_matrix
from flows.requests.train_systems import TRAINABLE, untrained
from models.retrieval.methods import method, needs
from models.retrieval.paper_tables import PAPER_TABLES
from models.retrieval.published_results import TEST_TEXTS
from storage.benchmarks.registry import FAMILIES
from tasks.methods import runnable_methods
from tasks.query_texts import GENERATED
from tasks.settings import Profile

TRAIN_IT: Final = "; train=true trains one on drawn pictures"


@dataclass(frozen=True)
class PaperRequest:
    """The tables and figures of a paper.

    Attributes:
        paper: Key of `PAPER_TABLES`.
        profile: Engines and settings.
        matrix: The evaluation's parameters, without benchmarks.
        benchmarks: The benchmarks to score on first; none where `demo` is set or nothing is made.
        demo: Folder of the demo whose drawn world is scored on; None where none is.
        seed: Seed of the drawn world.
        methods: Methods that are scored where they can run.
        target_captions: Largest number of captions of a target image in a sweep; 0: no sweep.
        out: Folder for the page and the tables.
        trained: Systems that are trained on drawn pictures first.
    """

    paper: str
    profile: Profile
    matrix: Values
    benchmarks: tuple[BenchmarkChoice, ...]
    demo: Path | None
    seed: int
    methods: tuple[str, ...]
    target_captions: int
    out: Path
    trained: tuple[str, ...] = ()

    @property
    def changes(self) -> Values:
        """The settings that it was given, its root among them."""
        changes: Values = self.matrix["settings"]
        return changes

    @property
    def profile_name(self) -> str:
        """The profile as it was given."""
        name: str = self.matrix["profile"]
        return name

    def with_networks(self, networks: Mapping[str, str]) -> PaperRequest:
        """The same with trained networks; setting of the profile -> folder."""
        changes = {**self.changes, **networks}
        return replace(
            self,
            profile=resolve_profile(self.profile_name, changes),
            matrix={**self.matrix, "settings": changes},
            trained=(),
        )

    def evaluations(self, benchmarks: Sequence[BenchmarkChoice]) -> tuple[RerunRequest, ...]:
        """One evaluation for each backbone, of this request's methods alone.

        Raises:
            ValueError: says what is missing, and what to set.
        """
        asked = evaluate_matrix(benchmarks=list(benchmarks), **self.matrix)
        made = [self._only(each) for each in asked]
        return tuple(again for each in made for again in (each, *self._with_generated_texts(each)))

    def _only(self, asked: RerunRequest) -> RerunRequest:
        """An evaluation of these methods; those that are left out keep their reasons."""
        methods = tuple(m for m in asked.methods if m in self.methods)
        families = {ref.load().family for ref in asked.refs}
        trains = any(LINCIR in needs(method(m), family) for m in methods for family in families)
        reasons = {
            name: why + (TRAIN_IT if self.demo and name in TRAINABLE else "")
            for name, why in asked.left_out.items()
            if name in self.methods
        }
        return replace(
            asked,
            methods=methods,
            left_out=reasons,
            mapping=asked.mapping if trains else None,
        )

    def _with_generated_texts(self, asked: RerunRequest) -> list[RerunRequest]:
        """The table of annotated and generated test texts: the second half of its numbers."""
        tables = (t for t in PAPER_TABLES[self.paper] if t.number == TEST_TEXTS)
        wanted = {c.benchmark for table in tables for c in table.columns}
        places = [
            place
            for place, ref in enumerate(asked.refs)
            if ref.name in wanted and not ref.texts.are_replaced and ref.load().has_targets
        ]
        if "instructcir" not in asked.methods or not places:
            return []
        choices = [asked.choices[n].changed(texts=GENERATED) for n in places]
        refs = tuple(choice.ref(asked.profile) for choice in choices)
        for ref in refs:
            require_texts(asked.profile, ref)
        own = replace(asked, choices=tuple(choices), refs=refs, methods=("instructcir",))
        return [replace(own, mapping=None)]


def paper(
    paper: Literal["cvsi", "instructcir"],
    benchmarks: list[BenchmarkChoice] | None = None,
    backbones: list[Backbone] | None = None,
    methods: Methods = (),
    captioning: Captioning = PROFILE_CAPTIONING,
    mapping_captions: str = "",
    mapping_steps: Annotated[int, Field(ge=1)] = 20_000,
    work: Work = PROFILE_WORK,
    make: bool = True,
    target_captions: Annotated[int, Field(ge=0, le=100)] = 15,
    demo: str = "out/demo",
    seed: int = 0,
    train: bool = False,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    out: str = "",
) -> PaperRequest:
    """Fill a paper's tables and figures: published, measured, and why the rest is missing.

    What is missing and can be made is made first. Without benchmarks, the shipped small models are
    scored on the demo's drawn world; with other models the page shows what the ledger holds.

    Args:
        paper: The paper.
        benchmarks: The benchmarks to score on; none: the drawn world of the demo.
        backbones: The CLIPs to score; none: the profile's.
        methods: Names of methods; empty: all of the paper's tables that can run.
        mapping_captions: Captions that mapping networks are trained on, where a backbone needs
            one: a text or Parquet file, or the name of a captioned collection.
        mapping_steps: Optimiser steps of that training.
        make: Make what is missing; otherwise the page shows what the ledger holds.
        target_captions: Largest number of captions of a target image in CVSI's Figure 4c; 0 leaves
            that figure out.
        demo: Folder of `cirflow demo`; its world is drawn where it is missing.
        seed: Seed of the drawn world.
        train: Train the comparison systems on drawn pictures first, each once, where the drawn
            world is scored; that takes about two hours of one CPU core.
        out: Folder for the page and the tables; empty: out/paper/PAPER, in the UI a folder of the
            run's own below it.
    """
    folder = Path(demo).resolve()
    given = with_choices(settings, captioning, work)
    chosen = resolve_profile(profile, given)
    draws = make and not benchmarks and Path(chosen.encoder.name).is_relative_to(EMBEDDED)
    if draws and profile == "tiny":
        given = {"root": str(folder / "tables"), **given}
        chosen = resolve_profile(profile, given)
    if train and not draws:
        raise ValueError(
            "train=true trains on drawn pictures, for the drawn world alone; on other benchmarks "
            "run train-systems first, and name its profile: --profile out/systems/trained.toml"
        )
    place = out_folder(out, f"out/paper/{paper}")
    matrix = {
        "backbones": backbones or [Backbone()],
        "mapping_captions": mapping_captions,
        "mapping_steps": mapping_steps,
        "profile": profile,
        "settings": given,
        "out": str(place),
    }
    wanted = methods or tuple(
        dict.fromkeys(row.method for t in PAPER_TABLES[paper] for row in t.rows)
    )
    asked = PaperRequest(
        paper,
        chosen,
        matrix,
        tuple(benchmarks or ()) if make else (),
        folder if draws else None,
        seed,
        wanted,
        target_captions,
        place,
        untrained(chosen, wanted) if train else (),
    )
    if asked.benchmarks:
        asked.evaluations(asked.benchmarks)
    if draws:
        require_methods(chosen, [m for m in wanted if m in runnable_methods(chosen)], FAMILIES)
    require_out(place)
    require_root(chosen)
    return asked
