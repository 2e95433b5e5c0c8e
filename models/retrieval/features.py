"""Query features: functions from the inputs of queries to vectors, and the needs of each.

Systems declare theirs next to their methods (`models.retrieval.systems`);
`models.retrieval.methods` lists them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from models.protocols import SplicedText
from models.retrieval.cvsi_settings import CvsiSettings
from models.retrieval.fusion import unit

if TYPE_CHECKING:
    from models.protocols import FloatArray, ImageTextEncoder
    from models.textual_inversion.network import MappingNetwork

Need: TypeAlias = str
"""An input that must exist before a feature can be made: N `captions` or one `single_caption` of
the image, `edits` of each or a `single_edit` of the one, the added `objects`, a mapping network
(`mapping:lincir`, `mapping:searle`, `mapping:pic2word`), a trained `reformulation` network or
another composed query encoder (`composed:NAME`) or an `embedder`, in whose own space the vector
then lies, an `edited_picture`, a pseudo token made for the image alone (`tokens:oti`), a
`verifier`, or a gate of weights (`gate:METHOD`)."""

COMPOSED: Final = "composed:"
"""Begins the need of a composed query encoder; its name follows."""

Made: TypeAlias = "tuple[FloatArray, list[str]]"
"""Vectors (B, d), or (B, N * d) for features of every caption, and B reasons why a vector must not
be used (empty: it may be)."""


@dataclass(frozen=True)
class QueryInputs:
    """The inputs of one query. A feature reads some of them, and fails where one is missing.

    Attributes:
        texts: All readings of the modification text, the protocol's own first.
        image: f_v of the reference image (d,), not normalised; empty where no feature reads it.
        token: Pseudo token of the reference image (dt,); empty where it has none.
        captions: Captions of the reference image.
        edits: Edited captions.
        objects: The objects most likely added; None where nothing was answered.
    """

    texts: tuple[str, ...]
    image: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    token: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    captions: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()
    objects: str | None = None


@dataclass(frozen=True)
class FeatureMaker:
    """The engines and choices that query features are made with.

    Attributes:
        encoder: Image-text encoder.
        cvsi: Text forms and means (D3, D6, D7, D15).
        mapping: Mapping network; needed by features with a pseudo token only.
        compodiff: From B features of references (B, d) and B texts to sampled features (B, d).
    """

    encoder: ImageTextEncoder
    cvsi: CvsiSettings
    mapping: MappingNetwork | None = None
    compodiff: Callable[[FloatArray, Sequence[str]], FloatArray] | None = None

    def encode_spliced(
        self, queries: Sequence[QueryInputs], forms: Sequence[Sequence[SplicedText]]
    ) -> FloatArray:
        """Texts around each query's pseudo token; several forms become the mean of unit vectors.

        The token is the mapping network's, or the query's own where there is no network.
        """
        counts = [len(own) for own in forms]
        if self.mapping is not None:
            tokens = self.mapping.tokens(np.stack([query.image for query in queries]))
        elif any(len(query.token) for query in queries):
            width = self.encoder.token_width
            absent = np.zeros(width, np.float32)
            tokens = np.stack([q.token if len(q.token) else absent for q in queries])
        else:
            raise ValueError("this feature needs a mapping network; set mapping.checkpoint")
        flat = [text for own in forms for text in own]
        features = self.encoder.encode_spliced(flat, np.repeat(tokens, counts, axis=0))
        if max(counts) == 1:
            return features
        starts = np.cumsum([0, *counts[:-1]])
        sums = np.add.reduceat(unit(features), starts, axis=0)
        return (sums / np.array(counts)[:, None]).astype(np.float32)


Make: TypeAlias = "Callable[[FeatureMaker, Sequence[QueryInputs]], Made]"


@dataclass(frozen=True, slots=True)
class Feature:
    """One kind of vector.

    Attributes:
        name: Name that methods weigh it by.
        description: How it is made.
        needs: The inputs that must exist before it can be made.
        per_caption: Whether it is one vector per caption, (Q, N, d), and not (Q, d).
        compute: The function that makes it; None if a network or a gallery stage makes it.
    """

    name: str
    description: str
    needs: tuple[Need, ...] = ()
    per_caption: bool = False
    compute: Make | None = None

    def make(self, maker: FeatureMaker, queries: Sequence[QueryInputs]) -> Made:
        """Vectors of B queries, and why each must not be used.

        Raises:
            ValueError: it is not computed from texts and image features.
        """
        if self.compute is None:
            raise ValueError(f"{self.name} needs {', '.join(self.needs)}")
        if not queries:
            return np.zeros((0, maker.encoder.dim), np.float32), []
        return self.compute(maker, queries)


def query_feature(
    name: str, description: str, *needs: Need, per_caption: bool = False
) -> Callable[[Make], Feature]:
    """Declare a query feature by the function that makes it."""
    return lambda compute: Feature(name, description, needs, per_caption, compute)


PLAIN_GALLERY_FEATURES: Final = {
    feature.name: feature
    for feature in (
        Feature("image", "f_v(gallery image): t_v of equation 9."),
        Feature("captions", "Mean of f_t over the gallery image's captions: t_c.", ("captions",)),
    )
}
"""Gallery features of no one system; a stage makes each."""
