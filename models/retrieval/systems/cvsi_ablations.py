"""CVSI with one part taken out (Table III of the paper)."""

from __future__ import annotations

from functools import partial
from typing import Final

from models.retrieval.method_records import Method
from models.retrieval.systems.cvsi import CVSI_PAPER, cvsi_recipe

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

METHODS: Final = tuple(
    Method(
        name=f"cvsi-no-{name}",
        title=f"CVSI w/o {left_out}",
        group="ablation",
        paper=f"{CVSI_PAPER}, Table III",
        description=f"CVSI with the weights of {left_out} set to 0.",
        make=partial(cvsi_recipe, without=without),
        ablates="cvsi",
    )
    for name, left_out, without in _ABLATIONS
)
