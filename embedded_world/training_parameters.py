"""Pictures, triplets and parameters of trainings that fit the small models."""

from collections.abc import Mapping
from typing import Any, Final

from embedded_world.unlabelled_collections import UnlabelledSize

EMBEDDED_TRAINING: Final[Mapping[str, Any]] = {
    "batch_size": 256,
    "learning_rate": 5e-4,
    "new_learning_rate": 1e-3,
    "loss": {"temperature": 0.03},
    "training": {"class_grouping": 8, "max_steps": 750, "saved_as": "fp16", "keep": "last"},
}
"""Parameters of `train-reformulation`. All others keep the flow's defaults. After 250 steps the
effect of cross-attention cannot be seen yet (docs/embedded-results.md)."""

DEMO_PICTURES: Final = UnlabelledSize(ranges=500, sets=500)
DEMO_TRIPLETS: Final = 2000
DEMO_TRAINING: Final[Mapping[str, Any]] = {
    **EMBEDDED_TRAINING,
    "batch_size": 128,
    "training": {**EMBEDDED_TRAINING["training"], "max_steps": 50},
    "ema": {"start": 0.9},
}
"""In so few steps a moving average that starts at .996 would hardly move."""

SYSTEM_PICTURES: Final = UnlabelledSize(ranges=8000, sets=8000)
SYSTEM_TRIPLETS: Final = 32_000
WORD_PICTURES: Final = UnlabelledSize(ranges=1000, sets=1000)
"""What the comparison systems learn from: triplets of the first, or pictures of the last alone."""

_FUSION: Final[Mapping[str, Any]] = {
    "batch_size": 128,
    "max_steps": 500,
    "new_learning_rate": 1e-3,
    "warmup": 0.05,
    "clip": 1.0,
    "class_grouping": 8,
}
"""Every encoder of reference and text sees as many triplets, and as hard negatives."""
_TOWERS: Final[Mapping[str, Any]] = {**_FUSION, "learning_rate": 2e-4, "schedule": "cosine"}
_COMBINER: Final[Mapping[str, Any]] = {
    "network": {"projection": 256, "hidden": 512, "scale": 30},
    "training": {"batch_size": 512, "max_steps": 2000, "new_learning_rate": 1e-4},
}
SYSTEM_TRAINING: Final[Mapping[str, Mapping[str, Any]]] = {
    "pic2word": {"training": {"max_steps": 1500, "new_learning_rate": 1e-3}},
    "searle": {"training": {"max_steps": 1500, "new_learning_rate": 1e-3}},
    "palavra": {
        "training": {
            "batch_size": 64,  # so few pictures make 162 concepts
            "max_steps": 600,
            "new_learning_rate": 5e-4,
            "validate_every": 100,
        }
    },
    "covr": {"training": _FUSION},
    "case": {"training": _FUSION},
    "transagg": {
        "network": {"feedforward": 512, "dropout": 0.1, "scale": 30},
        "training": _TOWERS,
    },
    "clip4cir-sum": {"network": {"scale": 30}, "training": _TOWERS},
    "magiclens": {
        "network": {"layers": 2, "heads": 4, "feedforward": 512, "scale": 30},
        "training": _TOWERS,
    },
    "clip4cir": _COMBINER,
    "blip4cir-bi-sum": {"network": {"scale": 30}, "training": _TOWERS},
    "blip4cir-bi": {
        "network": _COMBINER["network"],
        # A reversed query meets every target of the batch through the combiner: B x B of them.
        "training": {"batch_size": 64, "max_steps": 800, "new_learning_rate": 2e-4},
    },
    "candidate-filter": {"training": _FUSION},
    # Near copies are what it must order, so that its negatives are what the filter has first.
    "candidate-rerank": {
        "network": {
            **{"negatives": 7, "among": 800, "dropout": 0, "filter_dropout": False},
            **{"filter_share": 1, "filter_in_loss": False},
        },
        "joined": 15_000,
        "training": {
            "batch_size": 32,
            "max_steps": 1000,
            "learning_rate": 5e-4,
            "new_learning_rate": 1e-3,
            "warmup": 0.03,
            "clip": 1.0,
            "schedule": "cosine",
            "keep": "last",
        },
    },
    "compodiff": {"network": {"captions": 0.2}, "training": {"max_steps": 1500}},
}
"""System -> parameters of its own flow; all others have their defaults."""
