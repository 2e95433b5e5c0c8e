"""CoVR and the CASE-style system: BLIP's text tower reads the text over the reference image."""

from __future__ import annotations

from typing import Final

from models.retrieval.cvsi_settings import CVSI
from models.retrieval.systems.composed import composed_features, composed_method

_COVR, _COVR_IMAGE = composed_features("covr", "CoVR")
_CASE, _CASE_IMAGE = composed_features("case", "CASE-style")

FEATURES: Final = (_COVR, _CASE)
GALLERY: Final = (_COVR_IMAGE, _CASE_IMAGE)

METHODS: Final = (
    composed_method(
        "covr",
        "CoVR",
        "CoVR, AAAI 2024",
        "BLIP's text encoder reads the text over the reference image; hard negatives weigh more.",
        settings=CVSI.changed(exclude_reference="always"),  # its own rule, on all benchmarks
        preprocess="clip",
    ),
    composed_method(
        "case",
        "CASE-style",
        "LaSCo / CASE, AAAI 2024",
        "CoVR's network, trained with reversed queries too; CASE's own code is not public.",
        preprocess="clip",
    ),
)
