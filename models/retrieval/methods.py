"""Every method as a row of data.

A method is weights over named query features and weights over named gallery features, both sums
ranked by one similarity; one method, LDRE, combines its features by a function instead, and one,
CVSI + InstructCIR, adds the similarities of two methods up. The
features that the asked methods need are made and no others. Systems of the papers' tables that
do not run here are rows too, with the reason, so that a leaderboard can show their numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from models.retrieval.cvsi_settings import CVSI_CODE, PAPER_WEIGHTS, CvsiSettings
from models.retrieval.ldre import ldre_queries
from models.retrieval.method_records import (
    Combine,
    Features,
    LateFusion,
    Method,
    Recipe,
    RecipeMaker,
)
from models.retrieval.methods_elsewhere import published_only
from models.spelling import unknown

if TYPE_CHECKING:
    import numpy as np


def method(name: str) -> Method:
    """A method by name; an error that lists the known ones."""
    if name not in METHODS:
        raise ValueError(unknown("method", name, METHODS))
    return METHODS[name]


def cvsi_recipe(family: str, settings: CvsiSettings, without: tuple[str, ...] = ()) -> Recipe:
    """Equations 8 to 10 for a benchmark family, with some parts' weights set to 0.

    The other weights stay as they are (the paper does not say how they are rescaled; under the
    cosine a common factor has no effect).
    """
    query, gallery = settings.query_weights(family), settings.gallery_weights(family)
    return Recipe(
        query={name: weight for name, weight in query.items() if name not in without},
        gallery={name: weight for name, weight in gallery.items() if name not in without},
        norms=settings.norms(family),
        similarity=settings.similarity,
    )


def with_cvsi_settings(name: str, title: str, settings: CvsiSettings) -> Method:
    """A CVSI row with a user's own settings."""
    return replace(METHODS["cvsi"], name=name, title=title, settings=settings)


def late_fusion(first: Method, second: Method, weights: Mapping[str, float]) -> RecipeMaker:
    """(1 - w) times the first method's similarity plus w times the second's.

    Args:
        first: A method of weighted sums.
        second: Another.
        weights: Benchmark family -> w in [0, 1]. At 0 and 1 one method is left as it is.

    Returns:
        What makes the recipe of a family. It raises ValueError where the family has no weight or
        a method is a late fusion itself.
    """

    def make(family: str, settings: CvsiSettings) -> LateFusion:
        if family not in weights or not 0.0 <= weights[family] <= 1.0:
            raise ValueError(
                f"late fusion needs a weight between 0 and 1 for the benchmark family {family!r}, "
                f"not {dict(weights)}: set instructcir.weights.{family}"
            )
        parts = []
        for weight, part in ((1.0 - weights[family], first), (weights[family], second)):
            recipe = part.recipe(family)
            if isinstance(recipe, LateFusion):
                raise ValueError(f"{part.title} is a late fusion itself; name what it is made of")
            parts.append((weight, recipe))
        return LateFusion(tuple(parts))

    return make


def _everywhere(
    query: Mapping[str, float], combine: Combine | None = None, gallery: str = "image"
) -> RecipeMaker:
    """The same recipe for every benchmark family."""
    recipe = Recipe(query=query, gallery={gallery: 1.0}, combine=combine)
    return lambda family, settings: recipe


def _ldre(query: Features, gallery: Features) -> np.ndarray[Any, Any]:
    return ldre_queries(query["each_edited_caption"], query["each_caption"], gallery["image"])


_CVSI_PAPER: Final = (
    "CVSI: Fine-grained Zero-shot CIR with Complementary Visual-Semantic Integration"
)
_INSTRUCTCIR_PAPER: Final = (
    "InstructCIR: Scaling Prompt Instructed Zero Shot CIR with Image-Only Data"
)
TRAIN_OR_NAME: Final = (
    "train one (cirflow run train-reformulation) or name one of yours "
    "(instructcir.checkpoint=FOLDER)"
)
NO_NETWORK: Final = f"no reformulation network is named; {TRAIN_OR_NAME}"
_ABLATIONS: Final = (
    ("visual", "visual information", ("fine_grained", "reference_image", "image")),
    ("semantic", "semantic information", ("edited_captions", "captions")),
    ("reference-image", "reference image features", ("reference_image",)),
    ("fine-grained", "fine-grained features", ("fine_grained",)),
    ("edited-captions", "average modified captions features", ("edited_captions",)),
    ("target-image", "target image features", ("image",)),
    ("target-captions", "target average captions features", ("captions",)),
)
"""Rows of CVSI's Table III: name, what is left out, features whose weight becomes 0."""


def _baselines() -> list[Method]:
    return [
        Method(
            name="image-only",
            title="Image only",
            group="baseline",
            paper="baseline of the CIR literature",
            description="The reference image's own feature.",
            make=_everywhere({"reference_image": 1.0}),
        ),
        Method(
            name="text-only",
            title="Text only",
            group="baseline",
            paper="baseline of the CIR literature",
            description="The modification text's feature.",
            make=_everywhere({"text": 1.0}),
        ),
        Method(
            name="image-text-sum",
            title="Image + text sum",
            group="baseline",
            paper="baseline of the CIR literature (Pic2Word, CVPR 2023)",
            description="Sum of the unit features of reference image and modification text.",
            make=_everywhere({"reference_image": 0.5, "text": 0.5}),
        ),
        Method(
            name="captioning",
            title="Captioning",
            group="baseline",
            paper="baseline of CVSI's Table I",
            description="'a photo of {caption} that {modification}' with one caption.",
            make=_everywhere({"captioning": 1.0}),
        ),
    ]


def _textual_inversion() -> list[Method]:
    own = "no checkpoint ships with the project; name one of yours (mapping.{}=FILE)"
    return [
        Method(
            name="lincir",
            title="LinCIR",
            group="textual inversion",
            paper="LinCIR: Language-only Training of Zero-shot CIR, CVPR 2024",
            description="'a photo of $ that {modification}', $ mapped from the reference image.",
            make=_everywhere({"pseudo": 1.0}),
        ),
        Method(
            name="searle",
            title="SEARLE",
            group="textual inversion",
            paper="SEARLE: Zero-Shot CIR with Textual Inversion, ICCV 2023",
            description="As LinCIR, with SEARLE's mapping network.",
            make=_everywhere({"pseudo_searle": 1.0}),
            status="needs_checkpoint",
            reason=own.format("searle"),
        ),
        Method(
            name="pic2word",
            title="Pic2Word",
            group="textual inversion",
            paper="Pic2Word: Mapping Pictures to Words for Zero-shot CIR, CVPR 2023",
            description="'a photo of $ , {modification}' with Pic2Word's mapping network.",
            make=_everywhere({"pseudo_pic2word": 1.0}),
            status="needs_checkpoint",
            reason=own.format("pic2word"),
        ),
    ]


def _text_generator() -> list[Method]:
    return [
        Method(
            name="cirevl",
            title="CIReVL",
            group="text generator",
            paper="CIReVL: Vision-by-Language for Training-Free CIR, ICLR 2024",
            description="One caption of the reference, edited once by the text generator.",
            make=_everywhere({"edited_caption": 1.0}),
        ),
        Method(
            name="ldre",
            title="LDRE",
            group="text generator",
            paper="LDRE: LLM-based Divergent Reasoning and Ensemble for Zero-Shot CIR, SIGIR 2024",
            description="All edited captions, each weighed by how far it leads from its original.",
            make=_everywhere({"each_edited_caption": 1.0, "each_caption": 1.0}, _ldre),
        ),
    ]


def _complementary() -> list[Method]:
    return [
        Method(
            name="cvsi",
            title="CVSI",
            group="complementary",
            paper=_CVSI_PAPER,
            description="Edited captions, fine-grained text and reference image against gallery "
            "images and their captions.",
            make=cvsi_recipe,
        ),
        Method(
            name="cvsi-code",
            title="CVSI (released code)",
            group="complementary",
            paper=_CVSI_PAPER,
            description="CVSI with the released code's choices for D1 to D15.",
            make=cvsi_recipe,
            settings=CVSI_CODE,
        ),
    ]


INSTRUCTCIR_WEIGHTS: Final[Mapping[str, float]] = MappingProxyType(
    dict.fromkeys(PAPER_WEIGHTS, 0.5)
)
"""Weight of InstructCIR in CVSI + InstructCIR: an own choice, both alike, as no paper has the
fusion. Find better ones on a validation split (`sweep-fusion` with method=cvsi-instructcir)."""


def _reformulation() -> list[Method]:
    """The paper's system is the one with its stage-two combiner; the others differ in one thing."""
    rows = (
        ("instructcir", "InstructCIR", "Cross-attention reformulation network and combiner."),
        ("instructcir-no-combiner", "InstructCIR w/o combiner", "The network's z by itself."),
        ("instructcir-ema", "InstructCIR (EMA queries)", "InstructCIR with queries by its target."),
    )
    return [
        Method(
            name=name,
            title=title,
            group="trained",
            paper=_INSTRUCTCIR_PAPER,
            description=description,
            make=_everywhere({name.replace("-", "_"): 1.0}, gallery="instructcir_image"),
            status="needs_checkpoint",
            reason=NO_NETWORK,
        )
        for name, title, description in rows
    ]


def _fusions() -> list[Method]:
    first, second = _complementary()[0], _reformulation()[0]
    return [
        Method(
            name="cvsi-instructcir",
            title="CVSI + InstructCIR",
            group="complementary",
            paper="this project",
            description="The weighted sum of both methods' similarities.",
            make=late_fusion(first, second, INSTRUCTCIR_WEIGHTS),
            status="needs_checkpoint",
            reason=NO_NETWORK,
            blends=(first.name, second.name),
        )
    ]


def _ablations() -> list[Method]:
    return [
        Method(
            name=f"cvsi-no-{name}",
            title=f"CVSI w/o {left_out}",
            group="ablation",
            paper=f"{_CVSI_PAPER}, Table III",
            description=f"CVSI with the weights of {left_out} set to 0.",
            make=partial(cvsi_recipe, without=without),
            ablates="cvsi",
        )
        for name, left_out, without in _ABLATIONS
    ]


METHODS: Final[Mapping[str, Method]] = MappingProxyType(
    {
        row.name: row
        for rows in (
            _baselines(),
            _textual_inversion(),
            _text_generator(),
            _complementary(),
            _reformulation(),
            _fusions(),
            _ablations(),
            published_only(),
        )
        for row in rows
    }
)
