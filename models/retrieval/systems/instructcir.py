"""InstructCIR: queries by a trained reformulation network, alone and together with CVSI."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from models.retrieval.cvsi_settings import PAPER_WEIGHTS
from models.retrieval.features import Feature
from models.retrieval.method_records import Method, everywhere, late_fusion
from models.retrieval.systems.cvsi import CVSI_METHOD

FEATURES: Final[tuple[Feature, ...]] = (
    Feature(
        "instructcir",
        "InstructCIR's query f (online branch; z where no combiner was trained).",
        ("reformulation",),
    ),
    Feature("instructcir_no_combiner", "The same without the combiner: z.", ("reformulation",)),
    Feature("instructcir_ema", "The same by the EMA branch.", ("reformulation",)),
)
GALLERY: Final = (
    Feature(
        "instructcir_image", "InstructCIR's target path: EMA branch, no text.", ("reformulation",)
    ),
)

_INSTRUCTCIR_PAPER: Final = (
    "InstructCIR: Scaling Prompt Instructed Zero Shot CIR with Image-Only Data"
)
TRAIN_OR_NAME: Final = (
    "train one (cirflow run train-reformulation) or name one of yours "
    "(instructcir.checkpoint=FOLDER)"
)
NO_NETWORK: Final = f"no reformulation network is named; {TRAIN_OR_NAME}"
INSTRUCTCIR_WEIGHTS: Final[Mapping[str, float]] = MappingProxyType(
    dict.fromkeys(PAPER_WEIGHTS, 0.5)
)
"""Weight of InstructCIR in CVSI + InstructCIR: equal shares, as no paper has this fusion. Find
better ones on a validation split (`sweep-fusion` with method=cvsi-instructcir)."""

_ROWS: Final = (
    ("instructcir", "InstructCIR", "Cross-attention reformulation network and combiner."),
    ("instructcir-no-combiner", "InstructCIR w/o combiner", "The network's z without stage two."),
    (
        "instructcir-ema",
        "InstructCIR (EMA queries)",
        "The EMA branch encodes queries too.",
    ),
)
"""The paper's system is the one with its stage-two combiner; the others differ in one thing."""

_NETWORK_METHODS: Final = tuple(
    Method(
        name=name,
        title=title,
        group="trained",
        paper=_INSTRUCTCIR_PAPER,
        description=description,
        make=everywhere({name.replace("-", "_"): 1.0}, gallery="instructcir_image"),
        status="needs_checkpoint",
        reason=NO_NETWORK,
    )
    for name, title, description in _ROWS
)

METHODS: Final = (
    *_NETWORK_METHODS,
    Method(
        name="cvsi-instructcir",
        title="CVSI + InstructCIR",
        group="complementary",
        paper="this project",
        description="The weighted sum of both methods' similarities.",
        make=late_fusion(CVSI_METHOD, _NETWORK_METHODS[0], INSTRUCTCIR_WEIGHTS),
        status="needs_checkpoint",
        reason=NO_NETWORK,
        blends=("cvsi", "instructcir"),
    ),
)
