"""The choices of a run: drop-downs and small groups of fields.

The run dialog of Prefect's UI is made from the types; the command line takes the same values
(`--set backbone.name=ViT-B-32`). A value outside a list is refused before a run exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, WithJsonSchema, model_validator

from flows.form_fields import Of, OneOf, Text, Values, chosen
from models.captioners.settings import CaptionerSettings
from models.embedders.forms import Preset
from models.encoders.spec import EncoderSpec
from models.engine_settings import engine_kinds
from models.retrieval.methods import method, runnable_names
from models.settings import Settings
from models.spelling import unknown
from storage.benchmarks.registry import BENCHMARKS
from tasks.query_sets import BenchmarkRef
from tasks.query_texts import ANNOTATED, given_texts
from tasks.settings import Profile

ProfileName = Annotated[str, Text("tiny, small, production, or a TOML file that extends one.")]
Overrides = Annotated[
    Values | None,
    Text(
        "Dotted setting names and values that replace the profile's, e.g. "
        '{"root": "tables", "encoder.image_batch": 64}. `cirflow run FLOW --list` lists them.'
    ),
]


def _runs_here(name: str) -> str:
    row = method(name)
    if not row.runs:
        raise ValueError(f"{row.title} does not run here ({row.status}): {row.reason}")
    return name


MethodName = Annotated[
    str,
    AfterValidator(_runs_here),
    WithJsonSchema({"type": "string", "enum": runnable_names()}),
]
"""A method that can be run here; some need a checkpoint of their own. NAME+verify: its best images
are looked at by a verifier."""
Methods = Annotated[tuple[MethodName, ...], Text("Names of methods; empty: all that run.")]

SPLITS: Final[Mapping[str, tuple[str, ...]]] = {
    name: facts.offered_splits for name, facts in BENCHMARKS.items()
}
"""Benchmark -> its splits that can be chosen."""

BenchmarkName = Annotated[str, OneOf("benchmark", tuple(BENCHMARKS))]
Split = Annotated[
    str, OneOf("split", tuple(dict.fromkeys(name for own in SPLITS.values() for name in own)))
]
"""A split of some benchmark."""


class Clip(Settings):
    """The CLIP backbone. Captions, edits and added objects do not depend on it."""

    name: str = chosen("encoder.name", unset="")
    pretrained: Annotated[str, Of(EncoderSpec, "pretrained")] = ""

    @model_validator(mode="after")
    def _weights_need_a_name(self) -> Self:
        if self.pretrained and not self.name:
            raise ValueError(f"pretrained={self.pretrained} needs the backbone's name as well")
        return self

    @property
    def title(self) -> str:
        """A few words for the names of runs and reports."""
        name = Path(self.name).name if Path(self.name).is_dir() else self.name
        return f"{name} {self.pretrained}".strip() or "the profile's backbone"

    def settings(self) -> Values:
        """The profile's settings that this choice replaces."""
        if not self.name:
            return {}
        return {"encoder.name": self.name, "encoder.pretrained": self.pretrained}


class Backbone(Clip):
    """The CLIP backbone, and the mapping network that was trained for it."""

    mapping: str = ""
    """Checkpoint of a LinCIR mapping network for this backbone. Empty: one is trained if a method
    needs it."""
    embedder: str = ""
    """Embedding model of the method composed-embedding, a folder or hub id; empty: the
    profile's."""
    embedder_form: Literal[Preset, "clip"] = "qwen3-vl-embedding"
    """How the embedding model is asked; clip: the sum of CLIP's features (BGE-VL base)."""

    @property
    def title(self) -> str:
        """A few words for the names of runs and reports."""
        names = [super().title] if self.name or not self.embedder else []
        return " & ".join([*names, *([Path(self.embedder).name] if self.embedder else [])])

    def settings(self) -> Values:
        """The profile's settings that this choice replaces."""
        own = super().settings() | ({"mapping.checkpoint": self.mapping} if self.mapping else {})
        if not self.embedder:
            return own
        own |= {"embedder.model": self.embedder, "embedder.revision": ""}
        if self.embedder_form == "clip":
            return own | {"embedder.engine": "clip-embedder"}
        chat = {"embedder.engine": "chat-embedder", "embedder.form.preset": self.embedder_form}
        return own | chat


_ENGINES: Final = {
    name: kind
    for name, kind in engine_kinds(CaptionerSettings).items()
    if "model" in kind.model_fields  # imported texts are chosen by settings
}


class Captioner(Settings):
    """The captioner. The captions of another one lie in another table."""

    engine: Annotated[str, OneOf("engine", ("profile", *_ENGINES))] = "profile"
    """profile: the profile's captioner, as it is. Any other engine needs a model."""
    model: str = chosen("captioner.model", unset="")
    base_url: str = chosen("captioner.base_url", unset="")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
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

    def settings(self, captioner: str = "captioner") -> Values:
        """The profile's settings that this choice replaces.

        Args:
            captioner: Name of the captioner in the profile.
        """
        if self.engine == "profile":
            return {}
        own = self.model_dump(include={"engine", "model", "base_url"})
        own |= {"revision": "", "identity": ""}
        fields = _ENGINES[self.engine].model_fields
        return {f"{captioner}.{name}": value for name, value in own.items() if name in fields}


class Captioning(Captioner):
    """The captioner, and the number of captions of an image."""

    per_image: int = chosen("cvsi.captions_per_image", unset=0, ge=0, le=100)

    def settings(self, captioner: str = "captioner") -> Values:
        """The profile's settings that this choice replaces."""
        count = {"cvsi.captions_per_image": self.per_image} if self.per_image else {}
        return super().settings(captioner) | count


class Work(Settings):
    """Size of the shards, and the share of rows that may fail."""

    shard_size: int = chosen("shards", unset=0, ge=0)
    allow_gaps: float | None = chosen("allow_gaps", unset=None, ge=0, le=1)

    def settings(self) -> Values:
        """The profile's settings that this choice replaces."""
        kinds = ("captions", "features", "rewrites")
        sizes = {f"shards.{kind}": self.shard_size for kind in kinds if self.shard_size}
        return sizes | ({} if self.allow_gaps is None else {"allow_gaps": self.allow_gaps})


PROFILE_CLIP: Final = Clip()
PROFILE_CAPTIONER: Final = Captioner()
PROFILE_CAPTIONING: Final = Captioning()
PROFILE_WORK: Final = Work()
"""Forms without a choice: the profile's settings stay as they are."""


def with_choices(
    settings: Mapping[str, Any] | None, *forms: Clip | Captioner | Work
) -> dict[str, Any]:
    """Settings with the choices of forms on top."""
    return {**(settings or {}), **{k: v for form in forms for k, v in form.settings().items()}}


class BenchmarkChoice(Settings):
    """One split of a benchmark, in its published layout."""

    name: BenchmarkName
    """Name of the benchmark."""
    folder: str
    """The benchmark's folder in its published layout, images included."""
    split: Split = "val"
    """One of the benchmark's own splits."""
    collection: str = ""
    """Name of the collection of its images; empty: NAME-SPLIT."""
    texts: str = ANNOTATED
    """Texts of the queries. annotated: the benchmark's own. generated: made by the writer of
    triplets (instructcir.rewriter) from captions of reference and target. Or a file (.json, .jsonl,
    .csv, .parquet) with the query_id and text of every query."""

    @model_validator(mode="after")
    def _split_exists(self) -> Self:
        known = SPLITS[self.name]
        if self.split not in known:
            raise ValueError(unknown(f"split of {self.name}", self.split, known))
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
            texts=given_texts(self.texts),
        )
