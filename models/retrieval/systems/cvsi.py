"""CVSI: complementary visual-semantic integration, as in the paper and as in the released code."""

from __future__ import annotations

from collections.abc import Sequence
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

CVSI_PAPER: Final = (
    "CVSI: Fine-grained Zero-shot CIR with Complementary Visual-Semantic Integration"
)

METHODS: Final = (
    Method(
        name="cvsi",
        title="CVSI",
        group="complementary",
        paper=CVSI_PAPER,
        description="Edited captions, fine-grained text and reference image against gallery "
        "images and their captions.",
        make=cvsi_recipe,
    ),
    Method(
        name="cvsi-code",
        title="CVSI (released code)",
        group="complementary",
        paper=CVSI_PAPER,
        description="CVSI with the released code's choices for D1 to D15.",
        make=cvsi_recipe,
        settings=CVSI_CODE,
    ),
)

CVSI_METHOD: Final = METHODS[0]
