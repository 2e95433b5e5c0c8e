"""How a result was made, in words: what tells two rows of the ledger apart.

The words come from the specs of the tables behind a ranking, so that rows of earlier versions have
them too. A checkpoint has the short hash that its specs name; the names that people know it by are
noted next to it (`names_of`), and replace the hash in what is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from tasks.scoring import spec_words
from tasks.scoring.spec_words import Spec

if TYPE_CHECKING:
    from tasks.settings import CaptionerSettings, GeneratorSettings
    from tasks.stages.rankings import RankingStage
    from tasks.stages.stage import Stage

Entry = Mapping[str, Any]
"""An entry of the ledger."""
SpecOf = Callable[[str], Spec | None]
"""The spec of a table by its key; None where it is not known."""

FACETS: Final[Mapping[str, str]] = {
    "source": "source",
    "network": "network",
    "trained_on": "trained on",
    "embedder": "embedding model",
    "denoiser": "denoiser",
    "branch": "branch",
    "second_stage": "second stage",
    "verifier": "verifier",
    "mapping": "mapping network",
    "captioner": "captioner",
    "query_captions": "captions of a query",
    "target_captions": "captions of a target",
    "captioning": "captions drawn with",
    "editor": "image editor",
    "sampled": "features sampled with",
    "generator": "text generator",
    "edit_prompt": "edit prompt",
    "objects_prompt": "objects prompt",
    "asked_about": "captions asked about",
    "answers": "answers",
    "texts": "texts of queries",
    "weights": "weights",
    "preprocessing": "preprocessing",
    "precision": "precision",
    "forms": "text forms",
    "reference": "reference image",
    "without": "images without features",
    "engines": "engines run with",
    "versions": "tables of",
    "data": "data",
}
"""Facet -> heading, the most telling first."""
DETAILS: Final = ("engines", "versions", "data")
"""Facets that are said only where the others agree."""

NOT_RECORDED: Final = "not recorded"
"""The value of a facet that an earlier version did not write down."""
NONE: Final = "none"
"""The value of a facet that a row does not have and others of its method have."""


def how_made(ranking: Spec, spec_of: SpecOf) -> dict[str, str]:
    """Facet -> words, of all facets that the ranking depends on, in the order of `FACETS`.

    Args:
        ranking: Spec of the ranking's table.
        spec_of: Specs of the tables behind it.
    """
    parts = list(_parts(ranking))
    queries = list(_behind((key for part in parts for _, key in part["query"].values()), spec_of))
    gallery = list(_behind((key for part in parts for _, key in part["gallery"].values()), spec_of))
    specs = [*queries, *gallery]
    rewrites = [spec for spec in queries if spec_words.producer(spec) == "rewrites"]
    found = {
        "network": spec_words.each(spec_words.network(spec) for spec in specs),
        "embedder": spec_words.each(spec_words.embedder(spec) for spec in queries),
        "denoiser": spec_words.each(spec_words.denoiser(spec) for spec in queries),
        "branch": spec_words.each(spec_words.branch(spec) for spec in queries),
        "second_stage": spec_words.second_stage(ranking, spec_of),
        "verifier": spec_words.verifier(ranking, spec_of),
        "mapping": spec_words.each(spec_words.mapping(spec) for spec in queries),
        "captioner": spec_words.each(spec_words.captioner(spec) for spec in specs),
        "query_captions": spec_words.each(spec_words.captions(spec) for spec in queries),
        "target_captions": spec_words.each(
            spec_words.captions(spec, spec_words.first(gallery)) for spec in gallery
        ),
        "captioning": spec_words.each(spec_words.captioning(spec) for spec in specs),
        "sampled": spec_words.each(spec_words.sampled(spec) for spec in queries),
        "editor": spec_words.each(spec_words.editor(spec) for spec in queries),
        "generator": spec_words.each(spec_words.engine(spec["generator"]) for spec in rewrites),
        "edit_prompt": spec_words.each(
            spec_words.prompt(spec) for spec in rewrites if spec["step"] == "edit"
        ),
        "objects_prompt": spec_words.each(
            spec_words.prompt(spec) for spec in rewrites if spec["step"] == "objects"
        ),
        "asked_about": spec_words.each(spec_words.asked(spec) for spec in queries),
        "answers": spec_words.each(spec_words.answers(spec["settings"]) for spec in rewrites),
        "texts": spec_words.texts(ranking),
        "weights": "; ".join(spec_words.weights(part) for part in parts),
        "preprocessing": spec_words.each(spec_words.preprocessing(spec) for spec in specs),
        "precision": spec_words.each(spec_words.precision(spec) for spec in specs),
        "forms": spec_words.each(spec_words.forms(spec, queries) for spec in queries),
        "reference": "taken out" if ranking.get("exclude_reference") else "kept",
        "without": spec_words.without(ranking),
        "engines": spec_words.each(spec_words.engine_details(spec) for spec in specs),
        "versions": spec_words.each(sorted(spec_words.version(spec) for spec in specs)),
        "data": spec_words.data(ranking),
    }
    if not queries or not gallery:
        found = dict.fromkeys(found, NOT_RECORDED) | {
            name: found[name] for name in ("texts", "weights", "reference", "without", "data")
        }
    return {name: found[name] for name in FACETS if found.get(name)}


def made_by(stage: RankingStage) -> dict[str, str]:
    """Facet -> words for a ranking stage; a network's training and the queries' texts as well."""
    from tasks.compodiff import denoiser_facts
    from tasks.mapping_facts import token_network_trained_on
    from tasks.networks import network_facts
    from tasks.stages.query_features import QueryFeatureStage, token_networks
    from tasks.stages.reformulation_features import ReformulatedQueryStage
    from tasks.stages.rerank_scores import RerankScoreStage
    from tasks.stages.stage import inputs_of

    inputs = inputs_of([stage])
    specs = {each.spec_key: each.spec for each in inputs}
    made = how_made(stage.spec, specs.get)
    networks = [
        s.network.checkpoint
        for s in inputs
        if isinstance(s, ReformulatedQueryStage | RerankScoreStage)
    ]
    denoisers = [
        s.compodiff.checkpoint for s in inputs if isinstance(s, QueryFeatureStage) and s.compodiff
    ]
    said = [network_facts(each).trained_on for each in networks]
    said += [denoiser_facts(each).trained_on for each in denoisers]
    said += [token_network_trained_on(each) for each in token_networks(inputs)]
    trained = spec_words.each(said)
    label = stage.benchmark.texts.label
    own = {"trained_on": trained, "texts": label}
    return in_order({**made, **{facet: words for facet, words in own.items() if words}})


def names_of(stage: RankingStage) -> dict[str, str]:
    """Short hash in `how_made` -> the name that people know, of engines and prompts in folders."""
    from models.prompts.library import load_prompt
    from tasks.stages.captions import CaptionStage
    from tasks.stages.edited_pictures import EditedPictureStage
    from tasks.stages.embedded_features import EmbeddedQueryStage
    from tasks.stages.looks import LookStage
    from tasks.stages.questions import QuestionStage
    from tasks.stages.rewrites import RewriteStage
    from tasks.stages.stage import inputs_of

    names: dict[str, str] = {}
    for each in inputs_of([stage]):
        names |= _imports(each)
        if isinstance(each, CaptionStage):
            names[spec_words.local(each.spec["captioner"])] = spec_words.last_name(each.captioner)
        if isinstance(each, LookStage):
            names[spec_words.local(each.spec["verifier"])] = spec_words.last_name(each.verifier)
        if isinstance(each, QuestionStage) and each.generator:
            names[spec_words.local(each.spec["generator"])] = spec_words.last_name(each.generator)
        if isinstance(each, EmbeddedQueryStage):
            names[spec_words.local(each.spec["embedder"])] = spec_words.last_name(each.embedder)
        if isinstance(each, EditedPictureStage):
            names[spec_words.local(each.spec["editor"])] = spec_words.last_name(each.editor)
        if isinstance(each, RewriteStage):
            names[spec_words.local(each.spec["generator"])] = spec_words.last_name(each.generator)
            names[spec_words.prompt(each.spec)] = load_prompt(each.prompt).name
    return {own: name for own, name in names.items() if own and name}


def _imports(stage: Stage) -> dict[str, str]:
    """Key of an import -> its files with their hashes, or the editors of its pictures."""
    from tasks.imported_pictures import editors_of
    from tasks.imported_texts import imported_source

    if (editor := stage.spec.get("editor", {})).get("engine") == "imported":
        key = str(editor["model"])
        return {key: f"pictures by {editors_of(stage.root, key)} {key[:8]}"}
    engines = (stage.spec.get("captioner", {}), stage.spec.get("generator", {}))
    keys = {str(each["model"]) for each in engines if each.get("engine") == "imported"}
    return {key: imported_source(stage.root, key).partition("; licence")[0] for key in keys}


def named(made: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """What is shown: `local-866c1ec7b8c5` of a folder `llama` -> `llama 866c1ec7`."""
    shown = dict(made)
    for own, name in names.items():
        kind, _, digest = own.replace("-", " ").partition(" ")
        short = f"{name} ({digest})" if kind == "prompt" else f"{name} {digest[:8]}".rstrip()
        shown = {facet: words.replace(own, short) for facet, words in shown.items()}
    return shown


def engine_words(settings: CaptionerSettings | GeneratorSettings) -> str:
    """A captioner or text generator by the name that people know and by what identifies it."""
    fingerprint = settings.fingerprint
    names = {spec_words.local(fingerprint): spec_words.last_name(settings)}
    own = {local: name for local, name in names.items() if local and name}
    return named({"engine": spec_words.engine(fingerprint)}, own)["engine"]


def differences(entries: Sequence[Entry]) -> list[str]:
    """For each ledger entry, what tells it from others of its method, backbone and benchmark.

    Args:
        entries: Entries with `method`, `backbone`, `benchmark`, `split`, `world` and `made`.

    Returns:
        Words such as ``captions of a target 1 nucleus``; empty where no other entry has the method.
    """
    alike: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        alike.setdefault(_identity(entry), []).append(entry)
    return [_told(entry, alike[_identity(entry)]) for entry in entries]


def _identity(entry: Entry) -> tuple[str, ...]:
    columns = ("method", "backbone", "benchmark", "split", "world")
    return tuple(entry[name] for name in columns)


def _told(entry: Entry, rows: Sequence[Entry]) -> str:
    """The facets in which some rows differ, as this one has them.

    Details are told from those rows only that agree with this one in all else; the run, from those
    that agree in these as well.
    """
    telling = [facet for facet in FACETS if facet not in DETAILS]
    alike = _agreeing(entry, rows, telling)
    told = [*_differing(entry, rows, telling), *_differing(entry, alike, DETAILS)]
    if len(_agreeing(entry, alike, DETAILS)) > 1:
        told.append(f"run {entry['run'][:8]}")
    return ", ".join(told)


def _agreeing(entry: Entry, rows: Sequence[Entry], facets: Sequence[str]) -> list[Entry]:
    own = [_words(entry, facet) for facet in facets]
    return [row for row in rows if [_words(row, facet) for facet in facets] == own]


def _differing(entry: Entry, rows: Sequence[Entry], facets: Sequence[str]) -> list[str]:
    differing = [facet for facet in facets if len({_words(row, facet) for row in rows}) > 1]
    return [f"{FACETS[facet]} {_words(entry, facet)}" for facet in differing]


def _words(entry: Entry, facet: str) -> str:
    return str(entry["made"].get(facet, NONE))


# --------------------------------------------------------------------------- the graph of specs


def _parts(ranking: Spec) -> Iterator[Spec]:
    """The weighted sums of a ranking; a late fusion has several."""
    if "parts" in ranking:
        for weight, part in ranking["parts"]:
            for each in _parts(part):
                yield {**each, "weight": weight}
    elif "query" in ranking and "gallery" in ranking:
        yield ranking


def _behind(keys: Iterable[str], spec_of: SpecOf) -> Iterator[Spec]:
    """Specs of some tables and of those behind them, each once; unknown ones are left out."""
    seen, todo = set(), list(keys)
    while todo:
        key = todo.pop(0)
        if key in seen:
            continue
        seen.add(key)
        spec = spec_of(key)
        if spec is None:
            continue
        yield spec
        upstream = dict(spec.get("upstream", {}))
        if isinstance(spec.get("captions"), str):
            upstream["captions"] = spec["captions"]
        todo += upstream.values()


def in_order(made: Mapping[str, str]) -> dict[str, str]:
    """The facets in the order of `FACETS`; those of a later version after them."""
    return {**{name: made[name] for name in FACETS if name in made}, **made}
