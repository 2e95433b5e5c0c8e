"""InstructCIR's query features by name: which branch answers, and whether the combiner does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from models.instructcir.training_settings import Branch


@dataclass(frozen=True, slots=True)
class QueryForm:
    """How a reformulated query is made.

    Attributes:
        branch: Weights that answer: the trained ones, or their moving average.
        combined: Whether the stage-two combiner (equation 3) has the last word, where a
            checkpoint holds one.
    """

    branch: Branch
    combined: bool


QUERY_FORMS: Final[Mapping[str, QueryForm]] = MappingProxyType(
    {
        "instructcir": QueryForm("online", combined=True),
        "instructcir_no_combiner": QueryForm("online", combined=False),
        "instructcir_ema": QueryForm("ema", combined=True),
    }
)
"""Query feature of `models.retrieval.methods` -> its form."""

PLAIN_FORM: Final = QueryForm("online", combined=False)
"""Of a network with one branch and no combiner."""
