"""CVSI as a value: the paper's settings, the released code's, and every difference by name.

Paper and released code differ in fifteen places, D1 to D15. Each is a field of `CvsiSettings`;
`DIFFERENCES` lists the fields, and the stages that read them. Two presets exist: `CVSI` follows the
paper, with the careful choice where the paper is silent; `CVSI_CODE` follows the released code,
which presumably made the published numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from models.captioners.presets import Ensemble
from models.protocols import AutoDtype, PreprocessMode
from models.retrieval.fusion import PartNorm, Similarity, gallery_weights, query_weights
from models.retrieval.query_texts import NoObjects
from models.settings import Settings

SEARCH_FAMILY: Final = "circo"
"""Benchmark family whose prompts and weights a search uses where none is named."""
CODE_RENORMALISES_CAPTIONS: Final = frozenset({"fashioniq"})
"""Benchmark families whose mean gallery captions the released code scales to length one (D5)."""


class CvsiWeights(Settings):
    """Weights of equations 8 and 9."""

    alpha: float
    """Weight of the mean edited caption (equation 8)."""
    beta: float
    """Weight of the fine-grained text; the reference image has the rest of equation 8."""
    gamma: float
    """Weight of the mean gallery caption; the gallery image has the rest of equation 9."""

    @model_validator(mode="after")
    def _lie_in_the_simplex(self) -> Self:
        query_weights(self.alpha, self.beta)
        gallery_weights(self.gamma)
        return self


PAPER_WEIGHTS: Final[Mapping[str, CvsiWeights]] = MappingProxyType(
    {
        "cirr": CvsiWeights(alpha=0.6, beta=0.4, gamma=0.2),
        "circo": CvsiWeights(alpha=0.6, beta=0.4, gamma=0.2),
        "fashioniq": CvsiWeights(alpha=0.2, beta=0.6, gamma=0.1),
    }
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where paper and released code differ: its field, and the stage that reads it."""

    number: str
    field: str
    stage: str
    topic: str


DIFFERENCES: Final = tuple(
    Difference(f"D{number}", *row)
    for number, row in enumerate(
        (
            ("edit_mode", "edits", "text-generator calls per query"),
            ("objects_content", "objects", "captions shown for the added objects"),
            ("caption_mean", "caption features, fusion", "averaging of captions"),
            ("similarity", "search", "cosine or dot product"),
            ("part_norms", "fusion", "lengths of the parts of equations 8 and 9"),
            ("final_stop", "query features", "full stop after the fine-grained text"),
            ("fashion_captions", "query features", "order of FashionIQ's two captions"),
            ("caption_sampling", "captions", "how captions are drawn"),
            ("preprocess", "image features", "from picture to pixels"),
            ("gallery_dtype", "image features", "precision of gallery features"),
            ("exclude_reference", "search", "reference image in its own ranking"),
            ("temperature", "edits, objects", "text-generator temperature"),
            ("answer_parsing", "edits, objects", "use of the text generator's answers"),
            ("weights", "fusion", "alpha, beta and gamma by benchmark"),
            ("no_objects", "query features", "what is written when nothing is added"),
        ),
        start=1,
    )
)


class CvsiSettings(Settings):
    """Every choice of the method that changes a number."""

    captions_per_image: int = Field(15, ge=1)
    """N, captions of a reference image, and of a gallery image unless `target_captions` is set."""
    target_captions: int = Field(0, ge=0)
    """N of the gallery's images; 0: as many as of references. A smaller number takes the first of
    these captions, whose vectors are stored once; a larger one asks for captions of its own."""
    edit_mode: Literal["per_caption", "joined"] = "per_caption"
    """D1, read by the edit stage. `per_caption`: one edit for each of the N captions (equation 7).
    `joined`: one edit of all captions joined by ", "."""
    objects_content: Literal["first", "joined"] = "first"
    """D2, read by the added-objects stage. `first`: the first caption only (equation 6). `joined`:
    all captions joined by ", "."""
    caption_mean: Literal["renormalised", "unit_mean", "raw_mean"] = "renormalised"
    """D3, read by caption features and fusion. `renormalised`: mean of unit vectors, scaled to
    length one. `unit_mean`: the same, left at its length. `raw_mean`: mean of raw features."""
    similarity: Similarity = "cosine"
    """D4, read by search. `cosine` (equation 10), or `dot` with an unnormalised gallery vector."""
    part_norms: Literal["unit", "code"] = "unit"
    """D5, read by fusion. `unit`: all parts have length one. `code`: as in the released code, mean
    gallery captions keep their length for CIRR and CIRCO and are renormalised for FashionIQ."""
    final_stop: bool = True
    """D6, read by query features. A full stop ends the fine-grained text."""
    fashion_captions: Literal["one_order", "both_orders"] = "one_order"
    """D7, read by query features. `one_order`: "c1 and c2". `both_orders`: the mean of both orders'
    unit vectors, as SEARLE and LinCIR."""
    caption_sampling: Ensemble = "nucleus"
    """D8, read by the caption stage. `nucleus`: N independent samples. `beam_sample`: one beam
    search with N beams that samples. `lavis-nucleus`: the latter as LAVIS configures it.
    `lavis-1.0-nucleus`: the former as old versions of LAVIS do. `captioner`: as the captioner's
    papers did it (BLIP-2: lavis-nucleus; others: nucleus)."""
    preprocess: Literal["method", "targetpad", "clip"] = "method"
    """D9, read by image features: how a picture becomes pixels. `method`: as each method's own code
    does it, `clip` for LinCIR and Pic2Word, `targetpad` for all others."""
    gallery_dtype: AutoDtype = "fp32"
    """D10, read by image features: precision of the gallery's. Texts have that of the encoder. auto
    is bf16 on a GPU and fp32 elsewhere."""
    exclude_reference: Literal["cirr_only", "always", "never"] = "cirr_only"
    """D11, read by search: whether a query's reference is left out of its ranking. `cirr_only`: the
    benchmark's own rule."""
    temperature: float = Field(0.0, ge=0)
    """D12, read by the edit and added-objects stages: the text generator's temperature."""
    answer_parsing: Literal["strict", "verbatim"] = "strict"
    """D13, read by the edit and added-objects stages. `strict`: label removed, first line only,
    empty answers rejected. `verbatim`: as the model wrote it."""
    weights: Mapping[str, CvsiWeights] = Field(default_factory=lambda: dict(PAPER_WEIGHTS))
    """D14, read by fusion: alpha, beta, gamma by benchmark family."""
    no_objects: NoObjects = "drop"
    """D15, read by query features: the text where a modification adds nothing."""

    @property
    def captions_of_target(self) -> int:
        """N of a gallery image."""
        return self.target_captions or self.captions_per_image

    def weights_for(self, family: str) -> CvsiWeights:
        """The weights for a benchmark family.

        Raises:
            ValueError: The family has no weights.
        """
        if family not in self.weights:
            raise ValueError(
                f"no CVSI weights for the benchmark family {family!r}; there are "
                f"{', '.join(self.weights)}: set cvsi.weights.{family}, or name one of these as "
                "the benchmark's family"
            )
        return self.weights[family]

    def query_weights(self, family: str) -> dict[str, float]:
        """Equation 8's weights by feature name."""
        weights = self.weights_for(family)
        return query_weights(weights.alpha, weights.beta)

    def gallery_weights(self, family: str) -> dict[str, float]:
        """Equation 9's weights by feature name."""
        return gallery_weights(self.weights_for(family).gamma)

    def norms(self, family: str) -> dict[str, PartNorm]:
        """Parts that keep their length in the sums; all others are scaled to length one."""
        if self.part_norms == "unit" or self.caption_mean == "renormalised":
            return {}
        if family in CODE_RENORMALISES_CAPTIONS:
            return {"edited_captions": "as_is"}
        return {"edited_captions": "as_is", "captions": "as_is"}

    def prepared_as(self, own: PreprocessMode) -> Self:
        """The same with a method's own preprocessing, unless one is set for all methods."""
        return self.changed(preprocess=own) if self.preprocess == "method" else self

    @property
    def stored_mean(self) -> Literal["unit_mean", "raw_mean"]:
        """Which mean caption features are stored as; renormalising is left to fusion."""
        return "raw_mean" if self.caption_mean == "raw_mean" else "unit_mean"

    def excludes_reference(self, own_rule: bool) -> bool:
        """Whether a query's reference is taken out of its ranking.

        Args:
            own_rule: Whether the benchmark's own protocol takes it out (CIRR's does).
        """
        if self.exclude_reference == "cirr_only":
            return own_rule
        return self.exclude_reference == "always"


CVSI: Final = CvsiSettings()
"""The paper's method; where the paper is silent, the choice that keeps the most information."""

CVSI_CODE: Final = CvsiSettings(
    edit_mode="joined",
    objects_content="joined",
    caption_mean="unit_mean",
    similarity="dot",
    part_norms="code",
    final_stop=True,
    fashion_captions="one_order",
    caption_sampling="lavis-nucleus",
    preprocess="targetpad",
    gallery_dtype="fp16",
    exclude_reference="cirr_only",
    temperature=0.0,
    answer_parsing="verbatim",
    no_objects="keep",
)
"""The released code's method."""

PRESETS: Final[Mapping[str, CvsiSettings]] = MappingProxyType(
    {"cvsi": CVSI, "cvsi-code": CVSI_CODE}
)
