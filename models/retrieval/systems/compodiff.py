"""CompoDiff: a diffusion model samples the target's image feature from reference and text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from models.retrieval.features import Feature, FeatureMaker, Made, QueryInputs, query_feature
from models.retrieval.method_records import Method, everywhere

NO_DENOISER: Final = (
    "no denoiser is named; train one (cirflow run train-compodiff), or name a copy of "
    "navervision/CompoDiff-Aesthetic (compodiff.checkpoint=FOLDER)"
)


COMPODIFF: Final = "compodiff"
"""The query feature, and the need for a denoiser."""


@query_feature(COMPODIFF, "An image feature sampled from reference and text.", COMPODIFF)
def compodiff(maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
    if maker.compodiff is None:
        raise ValueError(NO_DENOISER)
    images = np.stack([query.image for query in queries])
    made = maker.compodiff(images, [query.texts[0] for query in queries])
    return made, [""] * len(queries)


FEATURES: Final[tuple[Feature, ...]] = (compodiff,)

METHODS: Final = (
    Method(
        name="compodiff",
        title="CompoDiff-style",
        group="generative",
        paper="CompoDiff: Versatile Composed Image Retrieval With Latent Diffusion, TMLR 2024",
        description="A denoiser over CLIP image features, guided by the text and the reference.",
        make=everywhere({COMPODIFF: 1.0}),
        preprocess="clip",
        status="needs_checkpoint",
        reason=NO_DENOISER,
    ),
)
