"""The named features that methods weigh, and what must be there before each can be made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Feature:
    """One kind of vector.

    Attributes:
        name: Key of `QUERY_FEATURES` or `GALLERY_FEATURES`.
        description: How it is made.
        needs: Stages that must have run: `captions` (N per image), `greedy_caption` (one per
            image), `edits` (one per caption, or one of all joined), `greedy_edit` (one of the
            greedy caption), `objects`, `mapping:NAME` for a mapping network, and `reformulation`
            for a trained reformulation network, in whose own space the vector then lies.
        per_caption: Whether it is one vector per caption, (Q, N, d), and not (Q, d).
    """

    name: str
    description: str
    needs: tuple[str, ...] = ()
    per_caption: bool = False


def _table(*features: Feature) -> Mapping[str, Feature]:
    return MappingProxyType({feature.name: feature for feature in features})


QUERY_FEATURES: Final = _table(
    Feature("reference_image", "f_v(reference image): q_v of equation 8."),
    Feature("text", "f_t(modification text)."),
    Feature("captioning", "f_t('a photo of {caption} that {text}').", ("greedy_caption",)),
    Feature(
        "edited_caption", "f_t(edit of the greedy caption).", ("greedy_caption", "greedy_edit")
    ),
    Feature("edited_captions", "Mean of f_t over the edits: q_m.", ("captions", "edits")),
    Feature("each_edited_caption", "f_t of every edit.", ("captions", "edits"), per_caption=True),
    Feature("each_caption", "f_t of every caption of the reference.", ("captions",), True),
    Feature("pseudo", "f_t('a photo of $ that {text}'), $ by LinCIR.", ("mapping:lincir",)),
    Feature("pseudo_searle", "The same with $ by SEARLE.", ("mapping:searle",)),
    Feature(
        "pseudo_pic2word", "f_t('a photo of $ , {text}'), $ by Pic2Word.", ("mapping:pic2word",)
    ),
    Feature(
        "fine_grained",
        "f_t('a photo of $ that {text}. And the photo should have {objects}.'): q_f.",
        ("captions", "mapping:lincir", "objects"),
    ),
    Feature(
        "instructcir",
        "InstructCIR's query f (online branch; z where no combiner was trained).",
        ("reformulation",),
    ),
    Feature("instructcir_no_combiner", "The same without the combiner: z.", ("reformulation",)),
    Feature("instructcir_ema", "The same by the EMA branch.", ("reformulation",)),
)

GALLERY_FEATURES: Final = _table(
    Feature("image", "f_v(gallery image): t_v of equation 9."),
    Feature("captions", "Mean of f_t over the gallery image's captions: t_c.", ("captions",)),
    Feature(
        "instructcir_image", "InstructCIR's target path: EMA branch, no text.", ("reformulation",)
    ),
)
