"""What people choose from when they start a run: drop-downs and small groups of fields.

The run dialog of Prefect's UI makes them from the types; the command line takes the same values
(`--set backbone.name=ViT-B-32`). A value outside a list is refused when the run is asked for.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from models.methods import METHODS, method
from tasks.query_sets import BenchmarkRef
from tasks.settings import Profile


def _runs_here(name: str) -> str:
    row = method(name)
    if not row.runs:
        raise ValueError(f"{row.title} does not run here ({row.status}): {row.reason}")
    return name


MethodName = Annotated[
    str,
    AfterValidator(_runs_here),
    WithJsonSchema({"type": "string", "enum": [name for name, row in METHODS.items() if row.runs]}),
]
"""A method that can be run here; some want a checkpoint of their own."""

BenchmarkName = Literal["cirr", "circo", "fashioniq"]
Split = Literal["val", "test1", "test"]


class Form(BaseModel):
    """A group of fields that refuses unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Backbone(Form):
    """Which CLIP. Captions, edits and added objects do not depend on it."""

    name: str = Field(
        "",
        description="open_clip name (ViT-B-32), hf-hub:ORG/REPO, or a directory that holds "
        "open_clip_config.json. Empty: the profile's backbone.",
    )
    pretrained: str = Field(
        "",
        description="Tag of the weights (openai, laion2b_s34b_b79k) or a weight file. Empty for "
        "hubs and directories.",
    )
    mapping: str = Field(
        "",
        description="Checkpoint of a LinCIR mapping network for this backbone. Empty: trained if "
        "a method needs one.",
    )

    def settings(self) -> dict[str, Any]:
        """The profile's settings that this choice replaces."""
        if not self.name:
            return {}
        chosen: dict[str, Any] = {"encoder.name": self.name, "encoder.pretrained": self.pretrained}
        return chosen | ({"mapping.checkpoint": self.mapping} if self.mapping else {})


class BenchmarkChoice(Form):
    """One split of a benchmark, in its published layout."""

    name: BenchmarkName = Field(description="Which benchmark.")
    folder: str = Field(description="The benchmark's folder, images included.")
    split: Split = Field("val", description="cirr: val, test1. circo: val, test. fashioniq: val.")
    collection: str = Field(
        "", description="Name of the collection of its images; empty: NAME-SPLIT."
    )

    def ref(self, profile: Profile, options: dict[str, Any] | None = None) -> BenchmarkRef:
        """The benchmark as stages know it."""
        return BenchmarkRef(
            name=self.name,
            root=self.folder,
            split=self.split,
            options=options or {},
            collection=self.collection,
            allow_missing=profile.allow_missing_images,
        )
