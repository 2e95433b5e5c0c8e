"""One composed query against an embedded gallery, without Prefect; only its matrix is written."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.retrieval.cvsi_settings import SEARCH_FAMILY
from models.retrieval.methods import first_stage
from models.retrieval.ranked_lists import padded_lists
from models.retrieval.reranked import reranked
from models.retrieval.verified import places_as_scores, verified
from models.verifiers.protocol import sigmoid
from storage.tables.keys import sha256_hex
from tasks.approximate import index_of
from tasks.kept_searches import Kept
from tasks.networks import load_scorer, picture_side
from tasks.planner import query_stages
from tasks.query_encodings import query_features
from tasks.query_sets import OneQuery
from tasks.search_request import asked_of, takes_index
from tasks.search_verdicts import margins_of
from tasks.settings import Profile, ReformulationSettings
from tasks.stages.decoded import OnePicture
from tasks.stages.image_sets import ImageSet
from tasks.stages.rankings import AnyGalleryFeature
from tasks.stages.reformulation_features import network_behind
from tasks.stages.weighted import gate_for

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from models.reranking.scorer import CandidateScorer
    from models.retrieval.approximate import Recall
    from models.retrieval.contributions import Contribution, Weights
    from models.retrieval.search import Ints, TopK


@dataclass(frozen=True)
class Hit:
    """One image found.

    Attributes:
        rank: 1 for the best.
        score: similarity under the method; of images that a second stage has read, its score.
        verdict: P(yes) of the verifier, in a list the probability to be chosen; None where none has
            looked at the image.
        image_id: sha256 of its bytes.
        paths: where it was ingested from.
        contribution: what each feature added to the similarity under the method's weights.
    """

    rank: int
    score: float
    image_id: str
    paths: tuple[str, ...]
    verdict: float | None = None
    contribution: Contribution | None = None


@dataclass(frozen=True)
class SearchResult:
    """The hits of a search, and the texts that were made for it.

    Attributes:
        gallery_size: images of the gallery, those without features included.
        without_features: images among them that lack a feature and are never found.
        approximate: how near the search came to the exact one; None where it was exact.
    """

    hits: tuple[Hit, ...]
    captions: tuple[str, ...]
    edits: tuple[str, ...]
    objects: str | None
    method: str
    gallery_size: int
    without_features: int = 0
    approximate: Recall | None = None


def search_gallery(
    profile: Profile,
    collection: str,
    gallery: Mapping[str, AnyGalleryFeature],
    image: bytes,
    text: str,
    *,
    method: str = "cvsi",
    family: str = SEARCH_FAMILY,
    k: int = 10,
    include_reference: bool = False,
    weights: Weights | None = None,
    kept: Kept | None = None,
) -> SearchResult:
    """Find the images of a gallery that an image and a modification text ask for.

    Args:
        profile: engines and settings.
        collection: name of the gallery's collection.
        gallery: stages of the gallery features that the method weighs, filled beforehand.
        image: bytes of the reference image.
        text: modification text.
        method: a method that runs here.
        family: benchmark family whose prompts and weights are used.
        k: how many images to return.
        include_reference: whether the reference image itself may be found.
        weights: in place of the method's own, of some of its features.
        kept: what earlier searches of this process made; None: nothing.

    Raises:
        ValueError: the method does not run here or takes no such weights, a text that it needs
            could not be made, or faiss is not installed for an approximate search.
        IncompleteTable: the gallery was not embedded under this profile.
        ImageProblem: the image cannot be decoded.
    """
    from models.retrieval.apart import top_k_apart
    from models.retrieval.approximate import nearest
    from models.retrieval.contributions import contributions
    from models.retrieval.gallery import Gallery
    from models.retrieval.gate import spaces_apart
    from models.retrieval.query_weights import weighed

    kept = kept or Kept()
    asked = asked_of(profile, method, family, weights)
    row, recipe = asked
    used = {name: gallery[name] for name in recipe.gallery}
    listed, opened = kept.gallery(profile, collection, used)
    approximate = takes_index(profile, asked, len(opened.keys))  # refused before models are loaded
    query = OneQuery(image_id=sha256_hex(image), text=text)
    stages = query_stages(profile, query, collection, method, family)
    reference = OnePicture(image, profile.pictures)
    # An image that does not decode is refused here.
    kept.once(("decodes", query.image_id), lambda: bool(reference.at(1)))
    made, texts = query_features(stages, query, reference, kept)
    own = opened.place(query.image_id)
    ranked = spaces_apart(recipe) if row.weighs else recipe

    def best_of(vectors: npt.NDArray[np.float32], k: int, excluded: Ints) -> TopK:
        own_of = functools.partial(kept.own_products, profile.root, opened)
        return top_k_apart(ranked, vectors, opened.features, own_of, k, excluded)

    if row.weighs:
        gate = gate_for(profile.gate_of(row.weighs), recipe, family)
        parts, images, weighing = weighed(
            recipe, gate, made, opened.features, padded_lists([[own]], 1)[0], best_of
        )
        vectors = parts.fused(weighing)
    else:
        vectors = recipe.query_vectors(made, opened.features).astype("float32")
        images = Gallery(opened.features, recipe.gallery_vectors)
    hidden = [own] if own >= 0 and not include_reference else []
    again = profile.rerank.candidates_of(family) if row.reranks else 0
    looked_at = profile.verify.candidates if row.verifies else 0
    left = min(max(k, again, looked_at), len(images) - len(hidden))
    hits: tuple[Hit, ...] = ()
    margins: dict[str, float] = {}
    recall: Recall | None = None
    if left:
        excluded = padded_lists([hidden], 1)
        if approximate:
            index, recall = index_of(profile.search, gallery, recipe, opened)
            count = profile.search.candidates
            top = nearest(index, images, vectors, left, count, excluded[0])
        else:
            top = best_of(vectors, left, excluded)
        found = opened.ids(top.indices[0])
        numbers = dict(zip(found, map(float, top.scores[0]), strict=True))
        if again:
            second = profile.composed_network(first_stage(method))
            scorer = load_scorer(second, network_behind(stages.values()), profile.pictures.threads)
            known = _second_look(
                profile, scorer, second, collection, query, reference, found[:again]
            )
            found, numbers = reranked(found, known, again), {**numbers, **known}
        if looked_at:
            best, later = found[:looked_at], found[looked_at:]
            margins = margins_of(profile, collection, query, image, best)
            one_scale = [numbers[each] for each in best]
            scores = places_as_scores(len(best)) if again else one_scale
            best, fused = verified(best, scores, margins, profile.verify.fusing.fusing)
            found, numbers = [*best, *later], {**numbers, **dict(zip(best, fused, strict=True))}
        shown = found[:k]
        paths = kept.paths_of(listed, shown)
        terms: dict[str, Contribution] = {}
        if not row.weighs:  # a gate's weights are not the recipe's
            places = [opened.place(own) for own in shown]
            added = contributions(recipe, made, opened.features, places)
            terms = dict(zip(shown, added, strict=True))
        hits = tuple(
            Hit(rank, numbers[own], own, paths[own], _verdict(margins, own), terms.get(own))
            for rank, own in enumerate(shown, 1)
        )
    lacking = opened.size - len(images)
    said = texts.captions, texts.edits, texts.objects
    return SearchResult(hits, *said, method, opened.size, lacking, recall)


def _second_look(
    profile: Profile,
    scorer: CandidateScorer,
    network: ReformulationSettings,
    collection: str,
    query: OneQuery,
    reference: OnePicture,
    candidates: Sequence[str],
) -> dict[str, float]:
    """Image id -> score of a second stage that reads the query with each candidate."""
    data = dict(ImageSet(collection=collection).read(profile.root, candidates))
    pictures = {name: OnePicture(own, profile.pictures) for name, own in data.items()}
    pictures[query.image_id] = reference
    side = picture_side(network)
    scores = scorer.scores(
        query.image_id, query.text, candidates, lambda name: pictures[name].at(side)
    )
    return dict(zip(candidates, map(float, scores), strict=True))


def _verdict(margins: Mapping[str, float], image_id: str) -> float | None:
    return sigmoid(margins[image_id]) if image_id in margins else None
