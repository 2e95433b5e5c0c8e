"""Trained networks that encode queries: facts of their folders, and the networks once loaded.

A reformulation network (InstructCIR) and another composed query encoder (`models.composed`) have
folders of different formats; whoever uses one asks here and need not know which it is.

A finished run reads only the folder (`network_facts`): the hashes of its files and its config.
Weights are loaded when rows must be made.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.composed.folder import composed_fingerprint
from models.instructcir.folder import features_fingerprint, network_fingerprint
from models.instructcir.query_forms import PLAIN_FORM, QUERY_FORMS, QueryForm
from models.network_folders import features_identity as composed_identity
from models.network_folders import read_config
from models.retrieval.systems.composed import NO_FOLDER
from models.retrieval.systems.instructcir import NO_NETWORK
from storage.locations.location import Entry, Location
from storage.tables.keys import content_key
from tasks.engines import fingerprint_name
from tasks.published_files import require_as_published
from tasks.settings import ReformulationSettings

if TYPE_CHECKING:
    from PIL import Image

    from models.composed.checkpoint import LoadedComposed
    from models.composed.encoder import ComposedEncoder
    from models.composed.network import ComposedNetwork
    from models.instructcir.checkpoint import LoadedNetwork
    from models.instructcir.encoder import ReformulationEncoder
    from models.instructcir.training_settings import Branch
    from models.protocols import FloatArray
    from models.reranking.scorer import CandidateScorer

INSTRUCTCIR: Final = "instructcir"
"""The system of reformulation networks; every other is in `models.composed.registry`."""


def why_none(system: str) -> str:
    """Why a system has no network, and what brings one."""
    return NO_NETWORK if system == INSTRUCTCIR else NO_FOLDER.format(name=system)


@dataclass(frozen=True)
class NetworkFacts:
    """Facts of a network that is not loaded.

    Attributes:
        system: `instructcir`, or the composed query encoder's name.
        name: Short name for people.
        identity: Fingerprint of its folder.
        dim: Width of its embeddings.
        backbone: Short name of the backbone that it was trained on.
        combiner: Kind of its combiner; empty without one.
        preprocess: From pictures to pixels.
        zero_shot: Whether it saw nothing of a benchmark except images without annotations.
        zero_shot_reason: Why not; empty where it is.
        trained_on: Steps, triplets and the writer of their texts, in words.
    """

    system: str
    name: str
    identity: Mapping[str, Any]
    dim: int
    backbone: str
    combiner: str
    preprocess: Mapping[str, Any]
    zero_shot: bool
    zero_shot_reason: str
    trained_on: str


def network_problem(checkpoint: str, system: str = INSTRUCTCIR) -> str:
    """Why there is no network to use; empty where there is one."""
    if not checkpoint:
        return why_none(system)
    if not Location(checkpoint).exists("config.json"):
        return f"{checkpoint} holds no network ({setting_of(system)}); {why_none(system)}"
    return ""


def setting_of(system: str) -> str:
    """The setting of a profile that names a system's network."""
    return "instructcir.checkpoint" if system == INSTRUCTCIR else f"composed.{system}"


def network_facts(checkpoint: str) -> NetworkFacts:
    """Facts of a network from its folder; no weights are loaded.

    Raises:
        CheckpointError: the folder holds no network.
        DamagedFile: its files are not those that its training published.
    """
    folder = on_this_machine(checkpoint)
    require_as_published(checkpoint, folder)
    config = read_config(folder)
    system = config.get("system", INSTRUCTCIR)
    fingerprint = network_fingerprint if system == INSTRUCTCIR else composed_fingerprint
    identity = fingerprint(folder)
    reason = why_not_zero_shot(config["provenance"])
    return NetworkFacts(
        system=system,
        name=f"network {content_key(identity)[:8]}",
        identity=identity,
        dim=int(config["dim"]),
        backbone=fingerprint_name(config["base"]),
        combiner=(config.get("combiner") or {}).get("kind", ""),
        preprocess=config["preprocess"],
        zero_shot=not reason,
        zero_shot_reason=reason,
        trained_on=trained_on(config["provenance"]),
    )


def trained_on(provenance: Mapping[str, Any]) -> str:
    """`750 steps on 30,240 triplets of ranges and sets, texts by local-866c1ec7b8c5`.

    Of a published network: `published FILE`.
    """
    if "published" in provenance:
        return f"published {provenance['published']['file']}"
    summary, triplets = provenance.get("summary", {}), provenance.get("triplets", {})
    said = [f"{summary[name]:,} {name}" for name in ("steps", "triplets") if name in summary]
    if triplets.get("collections"):
        said[-1:] = [f"{''.join(said[-1:])} of {' and '.join(triplets['collections'])}".strip()]
    writer = provenance.get("triplets_spec", {}).get("generator", {}).get("model")
    texts = f", texts by {writer}" if writer else ""
    return f"{' on '.join(said)}{texts}"


def query_form(settings: ReformulationSettings, feature: str) -> QueryForm:
    """Branch and combiner of a query feature; the combiner only if the checkpoint has one."""
    form = QUERY_FORMS.get(feature, PLAIN_FORM)
    return replace(
        form, combined=form.combined and bool(network_facts(settings.checkpoint).combiner)
    )


def features_identity(settings: ReformulationSettings, branch: Branch) -> dict[str, Any]:
    """The identity of one branch's features; no weights are loaded."""
    facts = network_facts(settings.checkpoint)
    if facts.system == INSTRUCTCIR:
        return dict(features_fingerprint(facts.identity, branch, settings.dtype))
    return dict(composed_identity(facts.identity, dtype=settings.dtype))


def picture_side(settings: ReformulationSettings) -> int:
    """Pixels of the shorter side that a network's preprocessing needs; no weights are loaded."""
    size = network_facts(settings.checkpoint).preprocess["config"]["size"]
    return size if isinstance(size, int) else max(size)


def encode_gallery(
    settings: ReformulationSettings, images: Sequence[Image.Image], threads: int = 0
) -> FloatArray:
    """Gallery vectors (B, d): of a reformulation network by its moving average.

    Args:
        settings: The network.
        images: B pictures.
        threads: Pictures prepared at a time; 0: one a core.
    """
    facts = network_facts(settings.checkpoint)
    if facts.system != INSTRUCTCIR:
        return _composed(settings).encode_gallery(images, threads)
    return _reformulating(settings, "ema").encode_gallery(images, threads)


def encode_queries(
    settings: ReformulationSettings,
    form: QueryForm,
    images: Sequence[Image.Image],
    texts: Sequence[str],
    keys: Sequence[str] | None = None,
    threads: int = 0,
) -> FloatArray:
    """Query vectors (B, d).

    Args:
        settings: The network.
        form: Branch, and whether the combiner makes the query from its output; a composed query
            encoder has neither.
        images: B reference images.
        texts: B modification texts.
        keys: B names of the images, so that an image without its text is encoded only once.
        threads: Pictures prepared at a time; 0: one a core.

    Raises:
        ValueError: A combiner is asked for and there is none.
    """
    facts = network_facts(settings.checkpoint)
    if facts.system != INSTRUCTCIR:
        return _composed(settings).encode_queries(images, texts, threads)
    from models.instructcir.encoder import combine_features

    encode = functools.partial(
        _reformulating(settings, form.branch).encode_queries, images, texts, keys, threads=threads
    )
    if not form.combined:
        return encode(with_image=False).z
    combiner = _loaded(settings.checkpoint, content_key(facts.identity)).combiner
    if combiner is None:
        raise ValueError(f"the network at {settings.checkpoint} has no combiner")
    return combine_features(combiner, encode(with_image=combiner.needs_image))


def _reformulating(settings: ReformulationSettings, branch: Branch) -> ReformulationEncoder:
    """The network as an encoder whose queries one branch answers; weights are loaded once."""
    from models.instructcir.encoder import ReformulationEncoder

    identity = content_key(network_facts(settings.checkpoint).identity)
    return ReformulationEncoder(
        _loaded(settings.checkpoint, identity),
        branch,
        settings.device,
        settings.dtype,
        settings.batch_size,
    )


def _composed(settings: ReformulationSettings) -> ComposedEncoder:
    """The network as an encoder; weights are loaded once."""
    from models.composed.encoder import ComposedEncoder

    identity = content_key(network_facts(settings.checkpoint).identity)
    return ComposedEncoder(
        _loaded_composed(settings.checkpoint, identity).network,
        settings.device,
        settings.dtype,
        settings.batch_size,
    )


def network_config(checkpoint: str) -> dict[str, Any]:
    """The configuration in a network's folder."""
    return read_config(on_this_machine(checkpoint))


def load_composed_network(checkpoint: str) -> ComposedNetwork:
    """A composed query encoder of one's own, in fp32 on the CPU: it may be changed."""
    from models.composed.checkpoint import load_composed

    return load_composed(on_this_machine(checkpoint)).network


def load_scorer(
    settings: ReformulationSettings,
    first: ReformulationSettings | None = None,
    threads: int = 0,
) -> CandidateScorer:
    """The scorer of a re-ranker; weights are loaded once.

    Args:
        settings: The re-ranker.
        first: The network whose best images it scores; None where that is not one.
        threads: Pictures prepared at a time; 0: one a core.

    Raises:
        ValueError: The network scores no candidates, or it was trained on another filter.
    """
    identity = content_key(network_facts(settings.checkpoint).identity)
    scorer = _scorer(settings, identity, threads)
    if first is not None:
        own = content_key(network_facts(first.checkpoint).identity)
        _require_own_filter(settings.checkpoint, identity, first.checkpoint, own)
    return scorer


@functools.lru_cache(maxsize=4)
def _require_own_filter(checkpoint: str, identity: str, first: str, own: str) -> None:
    """Refuse candidates of another filter than the one in the re-ranker; compared once.

    Scores would be made of one filter's states, and the row would be called by both.
    """
    from models.blip.candidate_filter import FilterNetwork
    from models.blip.candidate_rerank import RerankNetwork

    network, stage_one = (
        _loaded_composed(checkpoint, identity).network,
        load_composed_network(first),
    )
    if not isinstance(network, RerankNetwork) or not isinstance(stage_one, FilterNetwork):
        return
    if name := network.other_weight(stage_one):
        raise ValueError(
            f"the re-ranker at {checkpoint} was trained on another filter than {first}, first "
            f"{name}: name the filter that it was trained on (composed.candidate-filter), or train "
            "a re-ranker on this one (cirflow run train-composed --set "
            f"system=candidate-rerank --set start={first})"
        )


@functools.lru_cache(maxsize=1)
def _scorer(settings: ReformulationSettings, identity: str, threads: int) -> CandidateScorer:
    """As `_loaded`, with the tokens of images that it keeps."""
    from models.blip.candidate_rerank import RerankNetwork
    from models.reranking.scorer import CandidateScorer

    network = _loaded_composed(settings.checkpoint, identity).network
    if not isinstance(network, RerankNetwork):
        raise ValueError(
            f"the network at {settings.checkpoint} is a {type(network).__name__}, which scores no "
            "candidates; train one (cirflow run train-composed --set system=candidate-rerank)"
        )
    return CandidateScorer(
        network, settings.device, settings.dtype, settings.batch_size, threads=threads
    )


@functools.lru_cache(maxsize=1)
def _loaded_composed(checkpoint: str, identity: str) -> LoadedComposed:
    """As `_loaded`."""
    from models.composed.checkpoint import load_composed

    return load_composed(on_this_machine(checkpoint))


@functools.lru_cache(maxsize=1)
def _loaded(checkpoint: str, identity: str) -> LoadedNetwork:
    """A network in memory; `identity` is part of the cache key, so a replaced one is read again."""
    from models.instructcir.checkpoint import load_network as load

    return load(on_this_machine(checkpoint))


def on_this_machine(checkpoint: str) -> Path:
    """The checkpoint on this machine."""
    if not checkpoint.startswith("s3://"):
        return Path(checkpoint)
    listing = tuple(Location(checkpoint).entries())
    return Path(_fetched(checkpoint, listing).name)


@functools.lru_cache(maxsize=4)
def _fetched(checkpoint: str, listing: tuple[Entry, ...]) -> tempfile.TemporaryDirectory[str]:
    """A copy of a checkpoint on S3 as listed, so that a replaced one is fetched again."""
    source = Location(checkpoint)
    folder = tempfile.TemporaryDirectory(prefix="cirflow-network-")
    for entry in listing:
        target = Path(folder.name, entry.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes(entry.path))
    return folder


def why_not_zero_shot(provenance: Mapping[str, Any]) -> str:
    """Why results of a network must not be called zero-shot; empty where they may be.

    A network says so itself (`zero_shot`, `zero_shot_reason`), and so may the record of its data:
    a rewriter that saw annotated texts of a benchmark leaves `saw_benchmark_texts`.
    """
    reasons = []
    if provenance.get("zero_shot") is False:
        reasons.append(str(provenance.get("zero_shot_reason") or "its own record says so"))
    saw = dict.fromkeys(_benchmarks_seen(provenance))
    if saw:
        reasons.append(f"annotated texts of {' and '.join(saw)} were among its training data")
    if not reasons and "zero_shot" not in provenance:
        reasons.append("its record does not say what it was trained on")
    return "; ".join(reasons)


def texts_seen_by(generator: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    """Why what text generators wrote is not zero-shot, by fingerprints; empty where it is."""
    seen = " and ".join(dict.fromkeys(_benchmarks_seen(generator)))
    return f"the text generator was tuned on annotated texts of {seen}" if seen else ""


def _benchmarks_seen(record: Any) -> Iterator[str]:
    """Every benchmark named under `saw_benchmark_texts`, at any depth of the record."""
    if isinstance(record, Mapping):
        for name, value in record.items():
            if name == "saw_benchmark_texts":
                yield from ([value] if isinstance(value, str) else map(str, value or ()))
            else:
                yield from _benchmarks_seen(value)
    elif isinstance(record, list | tuple):
        for value in record:
            yield from _benchmarks_seen(value)
