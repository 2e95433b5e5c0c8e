"""How the reformulation network is trained: the shared choices, and its own.

The paper prints the optimiser, the weight decay and a batch of 32 on eight devices. Its text leaves
most other values open; they have the defaults that the method specification recommends (section
1.5).
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from models.training.settings import TripletTraining

Branch: TypeAlias = Literal["online", "ema"]


class ReformulationTraining(TripletTraining):
    """Everything about training that changes the weights."""

    branch: Branch = "online"
    """Network whose queries are validated: the `online` weights or their moving average."""
    combiner_learning_rate: float = Field(1e-2, gt=0)
    """Of stage two (not in the paper)."""
    combiner_epochs: int = Field(1, ge=1)
    """Passes of stage two (not in the paper)."""

    @model_serializer(mode="wrap")
    def _plain(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """`captions` came later: it is left out at its default, so that no key changes by it."""
        plain: dict[str, Any] = written(self)
        if self.captions == "joined":
            del plain["captions"]
        return plain
