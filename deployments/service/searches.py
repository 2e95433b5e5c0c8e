"""Searches, galleries and methods for the API, from what `cirflow search` uses too."""

from __future__ import annotations

import base64
import binascii
import os
import time
from typing import TYPE_CHECKING

from deployments.errors import told
from deployments.place import embed_command
from deployments.service.errors import Refusal
from deployments.service.records import (
    Approximate,
    FoundImage,
    GalleryFacts,
    MethodFacts,
    SearchAnswer,
    SearchRequest,
    Sides,
    Texts,
)
from storage.collections.known import UnknownCollection, require_collection
from storage.locations.location import Location
from storage.tables.plans import IncompleteTable
from storage.tables.table import require_complete

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deployments.service.state import Service
    from storage.collections.decoding import ImageFacts
    from tasks.search_gallery import Hit
    from tasks.stages.rankings import AnyGalleryFeature


def checked_picture(service: Service, data: bytes) -> ImageFacts:
    """What an uploaded picture is.

    Raises:
        ImageProblem: it is not a picture, or has too many pixels.
    """
    return service.inspected(data, service.settings.limits.pixels)


def searched(service: Service, asked: SearchRequest) -> SearchAnswer:
    """Answer one query.

    Raises:
        Refusal: the request asks for too much, or names what is not there.
        ImageProblem: the reference is not a picture.
        UnknownCollection: no gallery has the name.
        ValueError: the method does not run here, or takes no such weights.
    """
    from models.retrieval.contributions import Weights
    from models.retrieval.cvsi_settings import SEARCH_FAMILY
    from models.spelling import unknown
    from tasks.search_gallery import search_gallery

    began = time.perf_counter()
    most = service.settings.limits.k
    if asked.k > most:
        raise Refusal(422, "too_many", f"k is a number from 1 to {most}, not {asked.k}")
    family = asked.family or SEARCH_FAMILY
    if family not in service.profile.cvsi.weights:
        raise Refusal(
            422, "unknown_family", unknown("family", family, service.profile.cvsi.weights)
        )
    require_runs(service, asked.method)
    image = reference_of(service, asked)
    stages = stages_of(service, asked.gallery, asked.method)
    require_embedded(service, asked, stages)
    found = search_gallery(
        service.profile,
        asked.gallery,
        stages,
        image,
        asked.text,
        method=asked.method,
        family=family,
        k=asked.k,
        include_reference=asked.include_reference,
        weights=Weights(asked.weights.query, asked.weights.gallery),
        kept=service.kept,
    )
    near = found.approximate
    return SearchAnswer(
        image_id=service.pictures.add(image),
        gallery=asked.gallery,
        method=found.method,
        hits=[_hit(each) for each in found.hits],
        texts=Texts(captions=list(found.captions), edits=list(found.edits), objects=found.objects),
        gallery_size=found.gallery_size,
        without_features=found.without_features,
        approximate=near and Approximate(recall=near.recall, at=near.at, queries=near.queries),
        milliseconds=round(1000 * (time.perf_counter() - began), 1),
    )


def require_embedded(
    service: Service, asked: SearchRequest, stages: Mapping[str, AnyGalleryFeature]
) -> None:
    """Refuse a gallery that lacks the method's features.

    Raises:
        Refusal: with the command that makes them.
    """
    try:
        service.kept.gallery(service.profile, asked.gallery, stages)
    except IncompleteTable as error:
        command = embed_command(asked.gallery, asked.method, service.settings.chosen)
        raise Refusal(
            409,
            "not_embedded",
            f"the gallery {asked.gallery!r} is not embedded for {asked.method}: {command} "
            f"({error})",
        ) from error


def reference_of(service: Service, asked: SearchRequest) -> bytes:
    """The bytes of a query's reference.

    Raises:
        Refusal: no picture has the id, or the text is not base64.
        ImageProblem: the bytes are not a picture.
    """
    if asked.image_id is not None:
        return service.picture(asked.image_id)
    try:
        data = base64.b64decode(asked.image_base64 or "", validate=True)
    except binascii.Error as error:
        raise Refusal(422, "not_base64", f"image_base64 is not base64: {error}") from error
    checked_picture(service, data)
    return data


def stages_of(service: Service, gallery: str, method: str) -> Mapping[str, AnyGalleryFeature]:
    """The stages of the features that a method weighs in a gallery.

    Raises:
        UnknownCollection: no gallery has the name.
        ValueError: the name is not one, or the method does not run here.
    """
    from tasks.planner import gallery_stages

    def make() -> Mapping[str, AnyGalleryFeature]:
        require_collection(Location(service.root), gallery)
        return gallery_stages(service.profile, gallery, method)

    return service.kept.fresh(("stages", gallery, method), make)


def require_runs(service: Service, method: str) -> None:
    """Refuse a method that is not known or does not run under the profile.

    Raises:
        Refusal: with the nearest name, or the reason.
    """
    from models.retrieval.methods import METHODS, first_stage
    from models.spelling import unknown

    first = first_stage(method)
    if first not in METHODS:
        raise Refusal(404, "unknown_method", unknown("method", first, METHODS))
    if reason := reason_of(service, method):
        raise Refusal(409, "method_not_ready", f"{method} does not run here: {reason}")


def reason_of(service: Service, method: str) -> str:
    """Why a method does not run under the profile; empty where it does."""
    from tasks.methods import why_not_ready

    return service.kept.fresh(
        ("reason", method), lambda: (why_not_ready(method, service.profile),)
    )[0]


def gallery_facts(service: Service, name: str) -> GalleryFacts:
    """A collection and the methods that can search it now, or what is wrong with its files.

    Raises:
        UnknownCollection: no collection has the name.
    """
    from tasks.foreign_pictures import warning_for
    from tasks.methods import runnable_methods

    def facts() -> GalleryFacts:
        images = service.kept.paths(service.kept.collection(service.root, name)).images
        known: dict[str, bool] = {}
        ready = [
            method
            for method in runnable_methods(service.profile)
            if all(_is_filled(service, each, known) for each in _stages(service, name, method))
        ]
        warning = warning_for(service.profile, name)
        return GalleryFacts(name=name, images=images, methods=ready, warning=warning, fault="")

    def make() -> GalleryFacts:
        try:
            return facts()
        except UnknownCollection:
            raise
        except (OSError, ValueError, LookupError) as error:  # damaged: it hides no other one
            if not (fault := told(error)):
                raise
            return GalleryFacts(name=name, images=0, methods=[], warning="", fault=fault)

    return service.kept.fresh(("facts", name), make)


def _stages(service: Service, gallery: str, method: str) -> list[AnyGalleryFeature]:
    return list(stages_of(service, gallery, method).values())


def _is_filled(service: Service, stage: AnyGalleryFeature, known: dict[str, bool]) -> bool:
    mark = f"{type(stage).__name__} {stage.model_dump_json()}"
    if mark not in known:
        try:
            gaps = service.profile.allow_gaps
            require_complete(stage.existing_table(), stage.planned_keys(), gaps)
            known[mark] = True
        except IncompleteTable:
            known[mark] = False
    return known[mark]


def method_facts(service: Service, name: str) -> MethodFacts:
    """A method under the service's profile."""
    from models.retrieval.cvsi_settings import SEARCH_FAMILY
    from models.retrieval.method_records import LateFusion
    from models.retrieval.methods import METHODS
    from tasks.methods import configured_method, label_of, late_weights, settings_of

    def make() -> MethodFacts:
        profile, row, reason = service.profile, METHODS[name], reason_of(service, name)
        recipe = None
        if not reason:
            weights = late_weights(name, profile)
            own = configured_method(name, settings_of(name, profile.cvsi), weights, profile.ldre)
            recipe = own.recipe(SEARCH_FAMILY)
        sums = isinstance(recipe, LateFusion) or (recipe is not None and recipe.combine is None)
        return MethodFacts(
            name=name,
            title=row.title,
            group=row.group,
            description=row.description,
            ready=not reason,
            reason=reason,
            label="" if reason else label_of(name, profile),
            weights=Sides(query=dict(recipe.query), gallery=dict(recipe.gallery))
            if recipe
            else Sides(),
            movable=sums and not row.weighs,
        )

    return service.kept.fresh(("method", name), make)


def captions_of(service: Service, gallery: str, image_id: str) -> list[str]:
    """The captions that were made of a picture of a gallery; empty where there are none."""
    from tasks.stages.caption_features import CaptionFeatureStage

    if reason_of(service, "cvsi"):
        return []
    stage = stages_of(service, gallery, "cvsi").get("captions")
    if not isinstance(stage, CaptionFeatureStage):
        return []
    try:
        table = stage.captions.existing_table()
        rows = table.read(["captions"], [image_id])
    except (IncompleteTable, LookupError):
        return []
    return [text for texts in rows["captions"].to_list() for text in texts or ()]


def _hit(hit: Hit) -> FoundImage:
    terms = hit.contribution
    return FoundImage(
        rank=hit.rank,
        image_id=hit.image_id,
        name=os.path.basename(hit.paths[0]),
        paths=list(hit.paths),
        score=hit.score,
        verdict=hit.verdict,
        contributions=Sides(query=dict(terms.query), gallery=dict(terms.gallery))
        if terms
        else Sides(),
        image=f"/v1/images/{hit.image_id}",
        thumbnail=f"/v1/images/{hit.image_id}/thumbnail",
    )
