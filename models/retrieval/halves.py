"""Products of float16 copies of features, with a bound on what rounding took from them.

Half the bytes are read, and torch multiplies them without a conversion. The products name
candidates; exact scores rank these (`models.retrieval.apart`).

With q^ and x^ the rounded vectors, u = 2^-11 and t = 2^-25 (float16 rounds a number by u of it or,
below 2^-14, by t) and d numbers a vector,

    |<q, x> - p| <= |q| |x - x^| + |q - q^| |x^| + g |q^| |x^| + u |p| + t,
    |x - x^| <= u |x| + t sqrt(d),

where p is the product that is found and g <= 2^-23 d covers both sums in float32: of p and of the
product that counts as exact.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from models.retrieval.search import Features, as_tensor

_U = 2.0**-11
_T = 2.0**-25
_LEAST = 2.0**-126
"""Products below it may count as zero."""

Doubles = npt.NDArray[np.float64]


@functools.cache
def multiplies_halves() -> bool:
    """Whether torch has a product of float16 vectors here that is faster than one of float32.

    It has one for x86-64 with AVX2 (measured: 0.3 to 0.4 of the time), but takes oneDNN's instead
    where that knows float16 (measured: slower than float32). Others were not measured.
    """
    known = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    onednn = getattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", None)
    return known and onednn is not None and not onednn()


@dataclass(frozen=True, slots=True)
class HalfQuery:
    """A query as float16, scaled by a power of two so that its length is about one.

    Attributes:
        vector: (d,) float16.
        scale: What the vector is multiplied with to be the query.
        length: |q|.
        lost: |q - q^|.
    """

    vector: torch.Tensor
    scale: float
    length: float
    lost: float

    @classmethod
    def of(cls, query: npt.NDArray[np.float32]) -> HalfQuery:
        """Round a query (d,)."""
        exact = query.astype(np.float64)
        length = float(np.linalg.norm(exact))
        scale = 2.0 ** np.ceil(np.log2(length)) if 0 < length < np.inf else 1.0
        with np.errstate(over="ignore"):  # of a query that is not finite
            rounded = (exact / scale).astype(np.float16)
        lost = float(np.linalg.norm(exact - scale * rounded.astype(np.float64)))
        return cls(torch.from_numpy(rounded), scale, length, lost)

    def products(self, halves: Features) -> Doubles:
        """(g,) products with (g, d) float16 rows."""
        found = torch.mv(as_tensor(halves), self.vector)
        return self.scale * found.numpy().astype(np.float64)

    def errors(self, products: Doubles, lengths: Doubles) -> Doubles:
        """(g,) how far `products` may lie from the exact ones, for rows of these lengths."""
        d = len(self.vector)
        each = self.length * _U + self.lost * (1 + _U) + 2.0**-23 * d * (self.length + self.lost)
        always = _T * (d**0.5 * (self.length + self.lost) + self.scale) + _LEAST * d
        # A little more, for the second order of all terms.
        return 1.01 * (each * lengths + _U * np.abs(products) + always)
