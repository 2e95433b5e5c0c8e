"""Names of flow runs: what runs, on what. A list of runs shows them, and a name that is shared by
two runs hides what tells these apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from prefect import runtime

from flows.forms import Captioning, Clip
from models.spelling import agreed

Given = Mapping[str, Any]

MOST: Final = 3
"""Names that are listed; of more, the number."""
PROFILE: Final = "tiny"
"""The profile that a name leaves out."""


def named(words: Callable[[Given], str]) -> Callable[[], str]:
    """What Prefect calls for a run's name: the words of its parameters, and its profile."""

    def name() -> str:
        given = runtime.flow_run.parameters
        profile = given.get("profile") or PROFILE
        return words(given) if profile == PROFILE else f"{words(given)} ({profile})"

    return name


@named
def backfill(given: Given) -> str:
    """Such as `captions of photos`, `dry run: instructcir captions of photos by llava-1.5-7b`."""
    kind = given.get("kind", "ensemble")
    model = Captioning.model_validate(given.get("captioning") or {}).model
    which = "" if kind == "ensemble" else f"{kind} "
    by = f" by {Path(model).name}" if model else ""
    opening = "dry run: " if given.get("dry_run") else ""
    return f"{opening}{which}captions of {given.get('collection', 'all')}{by}"


@named
def embedding(given: Given) -> str:
    """Such as `embed photos`, `embed photos for lincir, cvsi on ViT-L-14 openai`."""
    methods = tuple(given.get("methods") or ("cvsi",))
    used = "" if methods == ("cvsi",) else f" for {_listed(methods)}"
    return f"embed {given['collection']}{used}{_on(given)}"


@named
def score(given: Given) -> str:
    """Such as `score cirr val`, `score cirr val: cvsi, lincir`."""
    methods = given.get("methods") or ()
    named_ones = f": {_listed(methods)}" if methods else ""
    return f"score {given['benchmark']} {given.get('split', 'val')}{named_ones}"


@named
def sweep(given: Given) -> str:
    """Such as `sweep cvsi on cirr val`."""
    method, split = given.get("method", "cvsi"), given.get("split", "val")
    return f"sweep {method} on {given['benchmark']} {split}"


@named
def triplets(given: Given) -> str:
    """Such as `1000 triplets of photos`."""
    count = given["count"]
    return f"{count} {agreed(count, 'triplet')} of {_listed(given['collections'])}"


@named
def worlds(given: Given) -> str:
    """Such as `drawn worlds 0, 1`, `harder drawn worlds 0: cvsi, lincir`."""
    kind = "pointing " if given.get("pointing") else "harder " if given.get("harder") else ""
    methods = given.get("methods") or ()
    chosen = f": {_listed(methods)}" if methods else ""
    return f"{kind}drawn worlds {_listed(map(str, given['seeds']))}{chosen}"


@named
def rewriter(given: Given) -> str:
    """Such as `tune rewriter with pairs.jsonl`."""
    pairs = given.get("pairs")
    return f"tune rewriter with {pairs}" if pairs else "tune rewriter"


@named
def mapping(given: Given) -> str:
    """Such as `train lincir on captions of photos`, `train searle on photos`."""
    system = given.get("system", "lincir")
    place = given.get("collection") or Path(given.get("captions") or "captions").name
    learned = f"captions of {place}" if system == "lincir" and given.get("collection") else place
    return f"train {system} on {learned}{_on(given)}"


def training(what: str) -> Callable[[], str]:
    """Such as `train CompoDiff with out/triplets/triplets.json`.

    Args:
        what: What is trained; `{NAME}` stands for a parameter.
    """

    def words(given: Given) -> str:
        source, n = given["triplets"], given.get("n")
        content = source if isinstance(source, Mapping) else {}
        place = _listed(content.get("collections", ())) or "triplets" if content else str(source)
        first = f", first {n}" if n else ""
        return f"{what.format(**given)} with {place}{first}{_on(given)}"

    return named(words)


def _on(given: Given) -> str:
    """The backbone, where one was chosen."""
    chosen = given.get("backbone") or {}
    backbone = chosen if isinstance(chosen, Clip) else Clip.model_validate(chosen)
    return f" on {backbone.title}" if backbone.name else ""


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found) if len(found) <= MOST else f"{len(found)} of them"
