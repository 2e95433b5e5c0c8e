"""What people choose from when they start a run: drop-downs and small groups of fields.

The run dialog of Prefect's UI makes them from the types; the command line takes the same values
(`--set backbone.name=ViT-B-32`). A value outside a list is refused when the run is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from models.captioners.settings import CaptionerSettings
from models.engine_settings import engine_kinds
from models.retrieval.methods import METHODS, method
from storage.benchmarks.registry import BENCHMARKS, benchmark_facts
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


def _known_benchmark(name: str) -> str:
    return benchmark_facts(name).name


BenchmarkName = Annotated[
    str,
    AfterValidator(_known_benchmark),
    WithJsonSchema({"type": "string", "enum": list(BENCHMARKS)}),
]
"""A benchmark of the registry."""

SPLITS: Final[Mapping[str, tuple[str, ...]]] = {
    name: facts.offered_splits for name, facts in BENCHMARKS.items()
}
"""Benchmark -> its splits that can be chosen."""

_SPLITS: Final = list(dict.fromkeys(name for own in SPLITS.values() for name in own))


def _known_split(split: str) -> str:
    if split not in _SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(_SPLITS)}")
    return split


Split = Annotated[
    str, AfterValidator(_known_split), WithJsonSchema({"type": "string", "enum": _SPLITS})
]
"""A split of some benchmark."""


class Form(BaseModel):
    """A group of fields that refuses unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Clip(Form):
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

    @model_validator(mode="after")
    def _weights_need_a_name(self) -> Clip:
        if self.pretrained and not self.name:
            raise ValueError(f"pretrained={self.pretrained} needs the backbone's name beside it")
        return self

    @property
    def title(self) -> str:
        """A few words for the names of runs."""
        name = Path(self.name).name if Path(self.name).is_dir() else self.name
        return f"{name} {self.pretrained}".strip() or "the profile's backbone"

    def settings(self) -> dict[str, Any]:
        """The profile's settings that this choice replaces."""
        if not self.name:
            return {}
        return {"encoder.name": self.name, "encoder.pretrained": self.pretrained}


class Backbone(Clip):
    """Which CLIP, and the mapping network that was trained for it."""

    mapping: str = Field(
        "",
        description="Checkpoint of a LinCIR mapping network for this backbone. Empty: trained if "
        "a method needs one.",
    )

    def settings(self) -> dict[str, Any]:
        """The profile's settings that this choice replaces."""
        return super().settings() | ({"mapping.checkpoint": self.mapping} if self.mapping else {})


_ENGINES: Final = engine_kinds(CaptionerSettings)


def _known_engine(name: str) -> str:
    if name != "profile" and name not in _ENGINES:
        raise ValueError(f"engine is {name!r}; one of {', '.join(map(repr, _ENGINES))}")
    return name


EngineName = Annotated[
    str,
    AfterValidator(_known_engine),
    WithJsonSchema({"type": "string", "enum": ["profile", *_ENGINES]}),
]


class Captioner(Form):
    """Which captioner. What another one writes lies in a table of its own."""

    engine: EngineName = Field(
        "profile",
        description="profile: the profile's captioner. blip2, llava: in process. openai: a server "
        "that takes images, such as vLLM.",
    )
    model: str = Field("", description="Directory or hub id; for a server, the name it serves.")
    base_url: str = Field("", description="Address of the server's /v1 (openai only).")

    @model_validator(mode="after")
    def _is_whole(self) -> Captioner:
        fields = {} if self.engine == "profile" else _ENGINES[self.engine].model_fields
        if ("model" in fields) != bool(self.model):
            others = ", ".join(
                name for name, kind in _ENGINES.items() if "model" in kind.model_fields
            )
            raise ValueError(
                f"a model goes with an engine ({others}), and the profile's captioner with none; "
                f"engine is {self.engine}, model is {self.model!r}"
            )
        if ("base_url" in fields) != bool(self.base_url):
            raise ValueError("base_url is the address of an openai server: give both or neither")
        return self

    def settings(self, captioner: str = "captioner") -> dict[str, Any]:
        """The profile's settings that this choice replaces.

        Args:
            captioner: Where the profile keeps the captioner in question.
        """
        if self.engine == "profile":
            return {}
        own = self.model_dump(include={"engine", "model", "base_url"})
        own |= {"revision": "", "identity": ""}
        fields = _ENGINES[self.engine].model_fields
        return {f"{captioner}.{name}": value for name, value in own.items() if name in fields}


class Captioning(Captioner):
    """Which captioner, and how many captions an image gets."""

    per_image: int = Field(
        0, ge=0, le=100, description="N, captions of one image; 0: the profile's."
    )

    def settings(self, captioner: str = "captioner") -> dict[str, Any]:
        """The profile's settings that this choice replaces."""
        count = {"cvsi.captions_per_image": self.per_image} if self.per_image else {}
        return super().settings(captioner) | count


class Work(Form):
    """How the work is cut, and what may be missing."""

    shard_size: int = Field(
        0,
        ge=0,
        description="Rows that are made and published together; a crash loses at most so many. "
        "0: the profile's sizes.",
    )
    allow_gaps: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Fraction of a table's rows that may lack a usable value; empty: as in the "
        "profile.",
    )

    def settings(self) -> dict[str, Any]:
        """The profile's settings that this choice replaces."""
        kinds = ("captions", "features", "rewrites")
        sizes = {f"shards.{kind}": self.shard_size for kind in kinds if self.shard_size}
        return sizes | ({} if self.allow_gaps is None else {"allow_gaps": self.allow_gaps})


PROFILE_CLIP: Final = Clip()
PROFILE_CAPTIONER: Final = Captioner()
PROFILE_CAPTIONING: Final = Captioning()
PROFILE_WORK: Final = Work()
"""Forms in which nothing is chosen: everything is as the profile says."""


def with_choices(
    settings: Mapping[str, Any] | None, *forms: Clip | Captioner | Work
) -> dict[str, Any]:
    """Settings with what was chosen in forms on top."""
    return {**(settings or {}), **{k: v for form in forms for k, v in form.settings().items()}}


class BenchmarkChoice(Form):
    """One split of a benchmark, in its published layout."""

    name: BenchmarkName = Field(description="Which benchmark.")
    folder: str = Field(description="The benchmark's folder, images included.")
    split: Split = Field(
        "val",
        description=" ".join(f"{name}: {', '.join(own)}." for name, own in SPLITS.items()),
    )
    collection: str = Field(
        "", description="Name of the collection of its images; empty: NAME-SPLIT."
    )

    @model_validator(mode="after")
    def _split_exists(self) -> BenchmarkChoice:
        known = SPLITS[self.name]
        if self.split not in known:
            raise ValueError(f"{self.name} has the splits {', '.join(known)}, not {self.split}")
        return self

    def ref(self, profile: Profile, options: dict[str, Any] | None = None) -> BenchmarkRef:
        """The benchmark as stages know it."""
        return BenchmarkRef(
            name=self.name,
            root=str(Path(self.folder).resolve()),
            split=self.split,
            options=options or {},
            collection=self.collection,
            allow_missing=profile.allow_missing_images,
        )
