"""What is asked of `generate-triplets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from flows.forms import PROFILE_CAPTIONER, Captioner, Overrides, ProfileName
from flows.profiles import resolve_profile
from flows.requests.checks import (
    out_folder,
    require_collections,
    require_engine,
    require_out,
    require_root,
)
from models.instructcir.modification_texts import PLACEHOLDERS
from models.instructcir.similarity import check_band
from models.prompts.library import load_prompt
from models.spelling import unknown
from tasks.choices import Within
from tasks.settings import Profile

if TYPE_CHECKING:
    from tasks.stages.pair_samples import PairSample, PairSource, SimilarityBand


@dataclass(frozen=True)
class TripletsRequest:
    """Pairs that modification texts are written for.

    Attributes:
        profile: Engines and settings.
        pairs: The sample.
        allow_gaps: Fraction of the pairs that may end without a text.
        retry_failed: Whether failed rows are made again.
        out: Folder for the report and triplets.json.
    """

    profile: Profile
    pairs: PairSample
    allow_gaps: float
    retry_failed: bool
    out: Path


def generate_triplets(
    collections: list[str],
    count: Annotated[int, Field(ge=1)],
    captioning: Captioner = PROFILE_CAPTIONER,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    within: Within | dict[str, Within] = "meta_class",
    mix: dict[str, float] | None = None,
    similarity: list[float] | None = None,
    seed: int = 0,
    guard: list[str] | None = None,
    guard_names: bool = True,
    guard_sets: bool = True,
    same_product: bool = False,
    allow_gaps: Annotated[float, Field(ge=0, le=1)] = 0.2,
    retry_failed: bool = False,
    out: str = "",
) -> TripletsRequest:
    """Make training data for InstructCIR out of images alone.

    Pairs are sampled, each of their images gets one caption (instructcir.captioner), and a language
    model (instructcir.rewriter) writes in at most twelve words the change from the first image to
    the second. A text that breaks this rule is retried; after `instructcir.attempts` the pair
    stays without a text, and its row says why.

    The first pairs of a larger count are those of a smaller one, in the same table: ask for 32,000,
    train, ask for 65,000, and only the new ones are made. A stopped run resumes where it was.

    Read the report before training. Training takes the file `triplets.json` next to it.

    Args:
        collections: Names of ingested collections.
        count: Number of pairs, from all collections together.
        captioning: The captioner of the images.
        within: Pair images of one meta_class, or any two of a collection; one rule for all
            collections, or one for each, such as {"fashion": "meta_class", "nlvr": "collection"}.
        mix: Collection -> weight of its share of the pairs; 1 where it is not named.
        similarity: LOW,HIGH: pairs of this band only, as shares of each class's pairs in the order
            of their similarity (cosine of the profile's image features); 0.5,1 is the more similar
            half, 0.5,0.98 leaves near duplicates out. Random pairs are often too unlike to tell a
            change. Empty: pairs of any similarity.
        seed: Seed of the pairs.
        guard: Guard list of images that must not be trained on: collections, or benchmarks as
            BENCHMARK:SPLIT:FOLDER, such as cirr:test1:data/cirr. Their images are recognised by
            content and by file name; a copy that was encoded again and renamed is not.
        guard_names: Recognise images by file name too; false where files are merely numbered.
        guard_sets: Leave out all images of an NLVR2 set (of eight) that holds a guarded image.
        same_product: Pair two views of one product of Fashion200k too.
        allow_gaps: Fraction of the pairs that may end without a text.
        retry_failed: Retry failed rows: captions, late answers, rejected texts.
        out: Folder for the report and triplets.json; empty: out/triplets, in the UI a folder of the
            run's own below it.
    """
    own = captioning.settings("instructcir.captioner")
    chosen = resolve_profile(profile, {**(settings or {}), **own})
    if not collections:
        raise ValueError("name at least one collection: collections=NAME,NAME")
    require_collections(chosen.root, collections)
    require_engine("instructcir.captioner", chosen.instructcir.captioner)
    require_engine("instructcir.rewriter", chosen.instructcir.rewriter)
    load_prompt(chosen.instructcir.prompt, PLACEHOLDERS)
    sources = pair_sources(collections, within, mix or {}, same_product)
    from tasks.stages.pair_samples import PairSample  # brings the reader of tables
    from tasks.training.leak_guard import located, parse_guard

    guarded = tuple(parse_guard(each) for each in guard or ())
    for ref in guarded:
        if isinstance(ref, str):
            require_collections(chosen.root, [ref])
        else:
            located(ref)
    pairs = PairSample(
        sources=sources,
        count=count,
        seed=seed,
        guard=guarded,
        guard_names=guard_names,
        guard_sets=guard_sets,
        similarity=similarity_band(chosen, similarity or ()),
    )
    require_root(chosen)
    place = out_folder(out, "out/triplets")
    require_out(place)
    return TripletsRequest(chosen, pairs, allow_gaps, retry_failed, place)


def similarity_band(profile: Profile, band: Sequence[float]) -> SimilarityBand | None:
    """The band of similarity that pairs are drawn from; None where none is given.

    Raises:
        ValueError: these are not two shares with room between them.
    """
    if not band:
        return None
    if len(band) != 2:
        raise ValueError(f"similarity is two shares LOW,HIGH, such as 0.5,1; not {list(band)}")
    check_band(*band)
    from tasks.stages.pair_samples import SimilarityBand  # brings the reader of tables

    return SimilarityBand(
        low=band[0], high=band[1], encoder=profile.gallery_encoder, pictures=profile.pictures
    )


def pair_sources(
    collections: Sequence[str],
    within: Within | Mapping[str, Within],
    mix: Mapping[str, float],
    same_product: bool = False,
) -> tuple[PairSource, ...]:
    """The collections with their rules and weights.

    Raises:
        ValueError: a rule or a weight is given for a collection that is not among them.
    """
    rules = dict.fromkeys(collections, within) if isinstance(within, str) else dict(within)
    for what, named in (("within", rules), ("mix", mix)):
        for name in named:
            if name not in collections:
                raise ValueError(unknown(f"collection in {what}", name, collections))
    from tasks.stages.pair_samples import PairSource  # brings the reader of tables

    return tuple(
        PairSource(
            collection=name,
            within=rules.get(name, "meta_class"),
            weight=mix.get(name, 1.0),
            same_product=same_product,
        )
        for name in collections
    )
