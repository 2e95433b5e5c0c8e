"""Settings that stages are made of. Everything is a frozen value that survives JSON.

Fields that change bytes enter the tables' specs through the engines' fingerprints; fields that do
not (device, batch sizes, addresses) never do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from models.captioners.presets import ensemble_sampling, single_sampling
from models.captioners.settings import CaptionerSettings
from models.compodiff.settings import CompoDiffSettings
from models.editors.instruct_pix2pix import InstructPix2PixSettings
from models.editors.settings import EditorSettings
from models.embedders.chat_embedder import ChatEmbedderSettings
from models.embedders.settings import EmbedderSettings
from models.encoders.spec import EncoderSpec
from models.engine_settings import EngineSettings
from models.generators.settings import GeneratorSettings
from models.protocols import CaptionSampling, DeviceName, Dtype
from models.retrieval.cvsi_settings import PAPER_WEIGHTS, CvsiSettings
from models.retrieval.ldre import LDRE, LdreSettings
from models.retrieval.systems.composed import NO_FOLDER
from models.retrieval.systems.composed_embedding import EMBEDDING_WEIGHTS
from models.retrieval.systems.instructcir import INSTRUCTCIR_WEIGHTS, NO_NETWORK
from models.retrieval.systems.query_weights import NO_GATE
from models.settings import Settings
from models.textual_inversion.oti_settings import OtiSettings
from models.textual_inversion.phrases import PhraseSettings
from models.textual_inversion.refining import RefiningSettings
from storage.collections.decoding import Alpha, Orientation
from tasks.verify_settings import VerifySettings


class CaptionOptions(Settings):
    """How captions are drawn. Their number and mode are CVSI's (`cvsi.captions_per_image`,
    `cvsi.caption_sampling`); a mode that is a preset reads the last three alone."""

    top_p: float = Field(0.9, gt=0, le=1)
    """Nucleus mass."""
    temperature: float = Field(1.0, gt=0)
    """Softmax temperature."""
    top_k: int = Field(0, ge=0)
    """Tokens that the nucleus is taken from; 0: all."""
    max_new_tokens: int = Field(30, ge=1)
    """Most tokens in a caption."""
    seed: int = 0
    """Seed of all captions of a table."""
    prompt: str = ""
    """Text given to the captioner with the image; empty for none (blip2) or for the prompt
    llava_caption (llava, openai)."""


class PictureSettings(Settings):
    """How an image file becomes a picture, for captions and features alike."""

    alpha: Alpha = "white"
    """Transparent pixels: composited on white, or `dropped` as by the published programs, which
    show the colours below them."""
    orientation: Orientation = "upright"
    """EXIF orientation: turned upright, or as `stored`, as by the published programs."""
    draft: int = Field(0, ge=0)
    """JPEG files are decoded at 1/2, 1/4 or 1/8 of their size as long as the shorter side is at
    least this many times what the model's preprocessing needs; 1 is fastest, 2 nearest to whole
    pictures. 0: always whole. It makes features, captions and edits of their own."""
    threads: int = Field(0, ge=0)
    """Pictures that are decoded and prepared at a time, ahead of the model; 0: one a core, at most
    32. One of 12 megapixels takes about 0.1 GB meanwhile. It changes no result."""

    @property
    def identity(self) -> dict[str, Any]:
        """Its part in the identity of what is made of pictures; empty for the defaults."""
        changed = self.model_dump(exclude_defaults=True, exclude={"threads"})
        return {"pictures": changed} if changed else {}

    @property
    def said(self) -> dict[str, Any]:
        """What a result says of it."""
        return self.model_dump(exclude={"threads"} if self.draft else {"threads", "draft"})

    def of_engine(self, engine: EngineSettings) -> Self:
        """The same, without drafts for an engine that reads pictures whole."""
        return self if not self.draft or engine.picture_side else self.changed(draft=0)


class PromptSettings(Settings):
    """Prompt files, by name (`models/prompts/NAME.md`) or by path."""

    edit: Mapping[str, str]
    """Benchmark family -> edit prompt (p_m)."""
    objects: str
    """Prompt for the objects that are most likely added (p_a)."""
    paraphrase: str = "paraphrase"
    """Prompt for other wordings of a query's text (`paraphrases` of score-benchmark)."""

    def edit_of(self, family: str) -> str:
        """The edit prompt of a benchmark family.

        Raises:
            ValueError: The family has none.
        """
        if family not in self.edit:
            raise ValueError(
                f"no edit prompt for the benchmark family {family!r}; there are "
                f"{', '.join(self.edit)}: set prompts.edit.{family}, or name one of these as the "
                "benchmark's family"
            )
        return self.edit[family]


class MappingSettings(Settings):
    """The mapping network whose pseudo token stands for the reference image."""

    checkpoint: str
    """Folder or file of a LinCIR mapping network."""
    searle: str = ""
    """Mapping network of SEARLE; the method of that name needs it."""
    pic2word: str = ""
    """Mapping network of Pic2Word; the method of that name needs it."""
    palavra: str = ""
    """Folder of a PALAVRA-style network (`train-mapping`, system=palavra); the method needs it."""

    def of(self, kind: str) -> str:
        """The checkpoint of one kind of network: lincir, searle, pic2word or palavra.

        Raises:
            ValueError: the profile names no checkpoint of this kind.
        """
        if not self.named[kind]:
            name = "checkpoint" if kind == "lincir" else kind
            raise ValueError(f"{kind} needs a checkpoint of its own; set mapping.{name}=FILE")
        return self.named[kind]

    @property
    def named(self) -> Mapping[str, str]:
        """Kind of network -> its checkpoint, empty if the profile names none."""
        return {
            "lincir": self.checkpoint,
            "searle": self.searle,
            "pic2word": self.pic2word,
            "palavra": self.palavra,
        }


class InversionSettings(Settings):
    """Pseudo tokens that are optimised for each image, and the words that they are learned by."""

    concepts: str = ""
    """File of concepts: one name a line, or Open Images' class list (CSV with DisplayName)."""
    phrases: str = ""
    """JSON file of phrases, concept -> list of texts; empty: the text generator writes them."""
    writing: PhraseSettings = PhraseSettings()
    """How the text generator writes phrases."""
    oti: OtiSettings = OtiSettings()
    """How SEARLE-OTI optimises a token."""
    refining: RefiningSettings = RefiningSettings()
    """How a PALAVRA-style token is refined."""
    tokens: str = ""
    """Key that `cirflow import features` printed for SEARLE's folder of tokens, which are then
    used in place of own ones."""


class InstructCirSettings(Settings):
    """The models behind InstructCIR's triplets, and the trained network that answers queries."""

    captioner: CaptionerSettings
    """Captioner of the training images (LLaVA); one caption an image."""
    captions: CaptionOptions = CaptionOptions(max_new_tokens=128)
    """Sampling of these captions (greedy)."""
    rewriter: GeneratorSettings
    """Text generator that writes the modification texts (Vicuna)."""
    prompt: str = "instructcir_difference"
    """Prompt of the modification text, by name or path."""
    temperature: float = Field(0.0, ge=0)
    """Temperature of the first answer; sampled texts vary more in their wording."""
    retry_temperature: float = Field(0.7, gt=0)
    """Temperature of further answers, after one that broke the contract."""
    attempts: int = Field(3, ge=1)
    """Answers asked for before a pair is given up."""
    checkpoint: str = ""
    """Folder of a trained reformulation network, local or s3://; empty: none."""
    weights: Mapping[str, float] = Field(default_factory=lambda: dict(INSTRUCTCIR_WEIGHTS))
    """Benchmark family -> weight of InstructCIR in CVSI + InstructCIR."""

    @property
    def captioning(self) -> CaptionSampling:
        """How the one caption of an image is made."""
        return CaptionSampling(n=1, mode="greedy", **self.captions.model_dump())


class ReformulationSettings(Settings):
    """The reformulation network that encodes, and its hardware."""

    checkpoint: str
    """Folder of the network, local or s3://."""
    dtype: Dtype = "fp32"
    """Precision that it computes in."""
    device: DeviceName = "auto"
    """auto, cpu, cuda, ..."""
    batch_size: int = Field(64, ge=1)
    """Images in one forward pass."""


class RerankSettings(Settings):
    """Second stages, which read the best images of a ranking again."""

    candidates: Mapping[str, int] = Field(
        default_factory=lambda: {"cirr": 50, "fashioniq": 100, "circo": 50}
    )
    """Benchmark family -> images of each ranking that are read again. The members of a query's
    group are always read."""

    def candidates_of(self, family: str) -> int:
        """Images that are read again for a benchmark family.

        Raises:
            ValueError: The family has no number, or one below 1.
        """
        count = self.candidates.get(family, 0)
        if count < 1:
            raise ValueError(
                f"rerank.candidates names no number of images for the benchmark family {family!r}; "
                f"set rerank.candidates.{family} to 1 or more"
            )
        return count


class SearchSettings(Settings):
    """How a person's queries are searched; benchmarks are always searched exactly."""

    halves_above: int = Field(20_000, ge=0)
    """Images of a gallery above which copies of its features in float16 find the candidates, which
    exact scores rank: the same ranking from half the bytes. 0: never. They take half as much disk
    as the features."""

    approximate_above: int = Field(0, ge=0)
    """Images of a gallery above which an approximate index proposes candidates, which exact scores
    rank; 0: never. It needs the extra `approximate`."""
    candidates: int = Field(500, ge=1)
    """Images that a query takes from the index."""
    recall: float = Field(0.95, gt=0, le=1)
    """Share of the exact best ten that the index is made to find, for images of the gallery."""

    def is_approximate(self, images: int) -> bool:
        """Whether a gallery of so many images is searched by an index."""
        return 0 < self.approximate_above < images

    def takes_halves(self, images: int) -> bool:
        """Whether a gallery of so many images is searched with copies in float16."""
        return 0 < self.halves_above < images and not self.is_approximate(images)


class ShardSizes(Settings):
    """Sizes of shards, by kind of table."""

    captions: int = Field(64, ge=1)
    """Images of a shard of captions."""
    features: int = Field(512, ge=1)
    """Images or queries of a shard of features."""
    tokens: int = Field(64, ge=1)
    """Images whose pseudo tokens are optimised together."""
    rewrites: int = Field(512, ge=1)
    """Prompts of a shard of edited captions or added objects."""
    triplets: int = Field(512, ge=1)
    """Pairs of a shard of triplets."""
    rerank: int = Field(32, ge=1)
    """Queries of a shard of a second stage's scores; the images of all their candidates are held in
    memory."""
    verifications: int = Field(512, ge=1)
    """Pairs of a query and a candidate of a shard; their pictures are held in memory."""
    pictures: int = Field(32, ge=1)
    """Edited pictures of a shard."""


class Profile(Settings):
    """Everything that a run needs to know. `flows/profiles.py` holds the complete ones."""

    name: str
    """Name of the profile, for people."""
    root: str
    """Root of the tables: a folder or an s3:// prefix."""
    encoder: EncoderSpec
    captioner: CaptionerSettings
    captions: CaptionOptions = CaptionOptions()
    pictures: PictureSettings = PictureSettings()
    generator: GeneratorSettings
    prompts: PromptSettings
    mapping: MappingSettings
    inversion: InversionSettings = InversionSettings()
    instructcir: InstructCirSettings
    editor: EditorSettings = InstructPix2PixSettings()
    """The image editor of the method instructpix2pix."""
    compodiff: CompoDiffSettings = CompoDiffSettings()
    """The denoiser of the method compodiff."""
    composed: Mapping[str, str] = Field(default_factory=dict)
    """Composed query encoder (transagg, covr, ...) -> folder of its trained network."""
    embedder: EmbedderSettings = ChatEmbedderSettings()
    """The model that reads image and text together, of the method composed-embedding."""
    embedding_weights: Mapping[str, float] = Field(default_factory=lambda: dict(EMBEDDING_WEIGHTS))
    """Benchmark family -> weight of the embedding model in CVSI + composed embedding."""
    query_weights: Mapping[str, str] = Field(default_factory=dict)
    """Method (cvsi, cvsi-instructcir) -> folder of the gate of METHOD+weights (`train-weights`)."""
    single_caption: Literal["greedy", "first", "lavis-beam5", "captioner"] = "greedy"
    """The one caption of single-caption methods: a greedy one, the first of the ensemble, the
    preset `lavis-beam5`, or the way of the `captioner`'s papers (BLIP-2: lavis-beam5; others:
    greedy)."""
    cvsi: CvsiSettings = Field(default_factory=lambda: CvsiSettings(weights=dict(PAPER_WEIGHTS)))
    ldre: LdreSettings = LDRE
    rerank: RerankSettings = RerankSettings()
    verify: VerifySettings
    unsuited: tuple[str, ...] = ()
    """Methods that are skipped where none are named: the models cannot serve them, they ask for
    texts of their own that another method's stand in for, or they take long."""
    search: SearchSettings = SearchSettings()
    shards: ShardSizes = ShardSizes()
    """Rows made and published together; a crash loses at most the shard in flight."""
    allow_gaps: float = Field(0.02, ge=0, le=1)
    """Fraction of a table's rows that may lack a usable value."""
    allow_missing_images: bool = False
    """Score a benchmark although some of its images are missing."""

    @model_validator(mode="after")
    def _prepares_pictures_as_it_says(self) -> Self:
        own, chosen = self.encoder.preprocess, self.cvsi.preprocess
        if own not in (EncoderSpec.model_fields["preprocess"].default, chosen):
            raise ValueError(
                f"encoder.preprocess={own} has no effect where cvsi.preprocess={chosen}: set "
                f"cvsi.preprocess={own} for all methods, or leave encoder.preprocess out"
            )
        return self

    @property
    def query_encoder(self) -> EncoderSpec:
        """The encoder of reference images and of all texts (difference D9)."""
        return self.encoder.changed(
            preprocess=self.cvsi.prepared_as(self.encoder.preprocess).preprocess
        )

    @property
    def gallery_encoder(self) -> EncoderSpec:
        """The encoder of gallery images (differences D9 and D10)."""
        return self.query_encoder.changed(dtype=self.cvsi.gallery_dtype)

    @property
    def network(self) -> ReformulationSettings:
        """The reformulation network, in the encoder's precision and on the encoder's device.

        Raises:
            ValueError: the profile names no network.
        """
        if not self.instructcir.checkpoint:
            raise ValueError(NO_NETWORK)
        return self._network_at(self.instructcir.checkpoint)

    def composed_network(self, name: str) -> ReformulationSettings:
        """A composed query encoder, likewise.

        Raises:
            ValueError: the profile names no network of that system.
        """
        if not self.composed.get(name):
            raise ValueError(NO_FOLDER.format(name=name))
        return self._network_at(self.composed[name])

    def _network_at(self, checkpoint: str) -> ReformulationSettings:
        return ReformulationSettings(
            checkpoint=checkpoint,
            dtype=self.encoder.precision,
            device=self.encoder.device,
            batch_size=self.encoder.image_batch,
        )

    def gate_of(self, method: str) -> str:
        """Folder of the gate that weighs a method's parts for each query.

        Raises:
            ValueError: the profile names none.
        """
        if not self.query_weights.get(method):
            raise ValueError(NO_GATE.format(name=method))
        return self.query_weights[method]

    @property
    def ensemble(self) -> CaptionSampling:
        """How the N captions of an image are drawn."""
        return ensemble_sampling(
            self.cvsi.caption_sampling,
            self.captioner.engine,
            self.cvsi.captions_per_image,
            self.captions.model_dump(),
        )

    @property
    def single(self) -> CaptionSampling:
        """How the one caption of the single-caption methods is made."""
        if self.single_caption == "first":
            return self.ensemble
        return single_sampling(
            self.single_caption, self.captioner.engine, self.captions.model_dump()
        )
