"""InstructPix2Pix + CLIP: edit the reference image as the text asks, then search by image."""

from __future__ import annotations

from typing import Final

from models.editors.engine import NO_EDITOR
from models.retrieval.features import Feature
from models.retrieval.method_records import Method, everywhere

EDITED: Final = "edited_picture"
"""The query feature, and the need for an image editor."""

FEATURES: Final[tuple[Feature, ...]] = (
    Feature(EDITED, "f_v(the reference image, edited as the text asks).", (EDITED,)),
)

METHODS: Final = (
    Method(
        name="instructpix2pix",
        title="InstructPix2Pix + CLIP",
        group="generative",
        paper="InstructPix2Pix, CVPR 2023, as a baseline in InstructCIR's Table II",
        description="The reference edited by an image editor, then image only.",
        make=everywhere({EDITED: 1.0}),
        preprocess="clip",
        status="needs_checkpoint",
        reason=NO_EDITOR,
    ),
)
