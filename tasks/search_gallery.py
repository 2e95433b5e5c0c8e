"""One composed query against an embedded gallery, without Prefect and without writing anything."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from models.generators.rewriting import (
    RewriteInput,
    RewriteSettings,
    edit_inputs,
    objects_input,
    read_reply,
    to_request,
)
from models.instructcir.query_forms import QUERY_FORMS
from models.prompts.library import load_prompt
from models.protocols import CaptionSampling
from models.retrieval.cvsi_settings import SEARCH_FAMILY
from models.retrieval.features import QUERY_FEATURES
from models.retrieval.method_records import AnyRecipe
from models.retrieval.query_features import FeatureMaker, QueryInputs
from models.retrieval.search import NO_EXCLUSION, top_k
from storage.collections.collection import Collection
from storage.collections.decoding import decode_image
from storage.locations.location import Location
from storage.tables.keys import sha256_hex
from storage.tables.schemas import OK
from storage.tables.table import require_complete
from tasks.engines import load_captioner, load_encoder, load_generator, load_mapping
from tasks.methods import configured_method, settings_of
from tasks.networks import encode_queries, query_form
from tasks.settings import Profile
from tasks.stages.rankings import AnyGalleryFeature

_NO_IMAGE = np.zeros(0, np.float32)


@dataclass(frozen=True)
class Hit:
    """One image found.

    Attributes:
        rank: 1 for the best.
        score: similarity under the method.
        image_id: sha256 of its bytes.
        paths: where it was ingested from.
    """

    rank: int
    score: float
    image_id: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class SearchResult:
    """What a search found, and the texts that were made on the way."""

    hits: tuple[Hit, ...]
    captions: tuple[str, ...]
    edits: tuple[str, ...]
    objects: str | None
    method: str
    gallery_size: int


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
        include_reference: may the reference image itself be found, if the gallery holds it.

    Raises:
        ValueError: the method does not run here, or an answer that it needs could not be made.
        IncompleteTable: the gallery was not embedded under this profile.
        ImageProblem: the image cannot be decoded.
    """
    settings = settings_of(method, profile.cvsi)
    profile = profile.model_copy(update={"cvsi": settings})
    weights = profile.instructcir.weights
    recipe = configured_method(method, settings, weights).recipe(family)
    keys, features = _gallery(gallery, recipe, profile.allow_gaps)
    query = _Query(profile, recipe, family, image, text)
    vectors = query.vectors(features)
    images = recipe.gallery_vectors(features).astype(np.float32)
    own = sha256_hex(image)
    hidden = keys.index(own) if own in keys and not include_reference else NO_EXCLUSION
    left = min(k, len(keys) - (hidden != NO_EXCLUSION))
    if left == 0:
        return query.result((), method, len(keys))
    excluded = np.array([hidden])
    top = top_k(vectors.astype(np.float32), images, left, excluded=excluded)
    found = [keys[i] for i in top.indices[0]]
    paths = _paths(profile.root, collection, found)
    hits = tuple(
        Hit(rank, float(score), image_id, paths[image_id])
        for rank, (score, image_id) in enumerate(zip(top.scores[0], found, strict=True), 1)
    )
    return query.result(hits, method, len(keys))


def _gallery(
    stages: Mapping[str, AnyGalleryFeature], recipe: AnyRecipe, allow_gaps: float
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Ids with all needed features, and those features in their order."""
    tables = {name: stages[name].existing_table() for name in recipe.gallery}
    planned = next(iter(stages.values())).planned()
    good = set(planned)
    for table in tables.values():
        require_complete(table, planned, allow_gaps=allow_gaps)
        rows = table.read(["status"], planned)
        good &= set(rows.filter(pl.col("status") == OK)["image_id"])
    keys = sorted(good)
    return keys, {name: table.vectors(keys) for name, table in tables.items()}


class _Query:
    """One query: asks the engines for what the recipe's features need."""

    def __init__(
        self, profile: Profile, recipe: AnyRecipe, family: str, image: bytes, text: str
    ) -> None:
        self._profile = profile
        self._family = family
        self._recipe = recipe
        self._text = text
        self._key = sha256_hex(image)
        self._picture = decode_image(image)
        encoded = [name for name in recipe.query if name not in QUERY_FORMS]
        self._encoder = load_encoder(profile.query_encoder) if encoded else None
        needs = {need for name in recipe.query for need in QUERY_FEATURES[name].needs}
        single = "greedy_caption" in needs
        captions = (
            self._captions(profile.single if single else profile.ensemble)
            if needs & {"captions", "greedy_caption"}
            else ()
        )
        captions = captions[:1] if single else captions
        kinds = [need.partition(":")[2] for need in needs if need.startswith("mapping:")]
        self._mapping = profile.mapping.of(kinds[0]) if kinds else ""
        self.inputs = QueryInputs(
            texts=(text,),
            image=self._encoder.encode_images([self._picture])[0] if self._encoder else _NO_IMAGE,
            captions=captions,
            edits=self._edits(captions, single) if needs & {"edits", "greedy_edit"} else (),
            objects=self._objects(captions) if "objects" in needs else None,
        )

    def vectors(self, gallery: dict[str, np.ndarray]) -> np.ndarray:
        """The fused query (1, d)."""
        made = {
            name: self._reformulated(name) if name in QUERY_FORMS else self._feature(name)
            for name in self._recipe.query
        }
        return self._recipe.query_vectors(made, gallery)

    def _feature(self, name: str) -> np.ndarray:
        assert self._encoder is not None
        mapping = load_mapping(self._mapping) if self._mapping else None
        maker = FeatureMaker(self._encoder, self._profile.cvsi, mapping)
        vectors, reasons = maker.make(name, [self.inputs])
        if reasons[0]:
            raise ValueError(f"the query has no {name}: {reasons[0]}")
        if QUERY_FEATURES[name].per_caption:
            return vectors.reshape(1, self._profile.cvsi.captions_per_image, -1)
        return vectors

    def _reformulated(self, name: str) -> np.ndarray:
        network = self._profile.network
        form = query_form(network, name)
        return encode_queries(network, form, [self._picture], [self._text])

    def result(self, hits: tuple[Hit, ...], method: str, gallery_size: int) -> SearchResult:
        """The hits with the texts that were made for the query."""
        known = self.inputs
        return SearchResult(hits, known.captions, known.edits, known.objects, method, gallery_size)

    def _captions(self, sampling: CaptionSampling) -> tuple[str, ...]:
        captioner = load_captioner(self._profile.captioner)
        reply = next(iter(captioner.caption([(self._key, self._picture)], sampling)))
        if reply.status != OK:
            raise ValueError(f"the image could not be captioned: {reply.status} ({reply.reason})")
        return reply.captions

    def _edits(self, captions: Sequence[str], single: bool) -> tuple[str, ...]:
        mode = "per_caption" if single else self._profile.cvsi.edit_mode
        prompt = self._profile.prompts.edit_of(self._family)
        return self._ask(edit_inputs(captions, self._text, mode), prompt, "edit")

    def _objects(self, captions: Sequence[str]) -> str | None:
        asked = objects_input(captions, self._text, self._profile.cvsi.objects_content)
        said = self._ask([asked], self._profile.prompts.objects, "objects")
        return said[0] if said else None

    def _ask(self, inputs: Sequence[RewriteInput], prompt: str, step: str) -> tuple[str, ...]:
        cvsi = self._profile.cvsi
        settings = RewriteSettings(
            max_new_tokens=self._profile.generator.max_new_tokens,
            temperature=cvsi.temperature,
            seed=self._profile.generator.seed,
            parsing=cvsi.answer_parsing,
        )
        distinct = list({each.key: each for each in inputs}.values())
        requests = [to_request(each, load_prompt(prompt), settings) for each in distinct]
        replies = {r.key: r for r in load_generator(self._profile.generator).generate(requests)}
        answers = [read_reply(replies[each.key], step, settings) for each in inputs]  # type: ignore[arg-type]
        return tuple(answer.text for answer in answers if answer.status == OK)


def _paths(root: str, collection: str, image_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    rows = Collection.open(Location(root), collection).rows()
    wanted = rows.filter(pl.col("image_id").is_in(list(image_ids)))
    paths: dict[str, tuple[str, ...]] = {}
    for image_id, source, path in wanted.select("image_id", "source", "path").iter_rows():
        paths[image_id] = (*paths.get(image_id, ()), os.path.join(source, path))
    return paths
