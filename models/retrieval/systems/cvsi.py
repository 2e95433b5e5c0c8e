"""CVSI: complementary visual-semantic integration, its ablations, and the released code's form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from models.retrieval.cvsi_settings import CVSI_CODE, CvsiSettings
from models.retrieval.features import Feature, FeatureMaker, Made, QueryInputs, query_feature
from models.retrieval.method_records import Method, Recipe
from models.retrieval.query_texts import fine_grained_text


@query_feature(
    "fine_grained",
    "f_t('a photo of $ that {text}. And the photo should have {objects}.'): q_f.",
    "captions",
    "mapping:lincir",
    "objects",
)
def fine_grained(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    cvsi = maker.cvsi
    both = cvsi.fashion_captions == "both_orders"
    forms = [
        [
            fine_grained_text(
                text,
                query.objects or "",
                final_stop=cvsi.final_stop,
                no_objects=cvsi.no_objects,
            )
            for text in (query.texts if both else query.texts[:1])
        ]
        for query in queries
    ]
    missing = "no answer to which objects are added"
    reasons = [missing if query.objects is None else "" for query in queries]
    return maker.encode_spliced(queries, forms), reasons


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


FEATURES: Final[tuple[Feature, ...]] = (fine_grained,)

_CVSI_PAPER: Final = (
    "CVSI: Fine-grained Zero-shot CIR with Complementary Visual-Semantic Integration"
)

_ABLATIONS: Final = (
    ("visual", "visual information", ("fine_grained", "reference_image", "image")),
    ("semantic", "semantic information", ("edited_captions", "captions")),
    ("reference-image", "reference image features", ("reference_image",)),
    ("fine-grained", "fine-grained features", ("fine_grained",)),
    ("edited-captions", "average modified captions features", ("edited_captions",)),
    ("target-image", "target image features", ("image",)),
    ("target-captions", "target average captions features", ("captions",)),
)
"""Rows of CVSI's Table III: name, part left out, features whose weight becomes 0."""

METHODS: Final = (
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
    *(
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
    ),
)

CVSI_METHOD: Final = METHODS[0]
