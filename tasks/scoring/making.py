"""How a result was made, in words: what tells two rows of the ledger apart.

The words come from the specs of the tables behind a ranking, so that rows of earlier versions have
them too. A checkpoint has the short hash that its specs name; the names that people know it by are
noted next to it (`names_of`), and replace the hash in what is shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from storage.tables.keys import content_key
from tasks.query_texts import ANNOTATED

if TYPE_CHECKING:
    from tasks.settings import CaptionerSettings, GeneratorSettings
    from tasks.stages.rankings import RankingStage
    from tasks.stages.stage import Stage

Spec = Mapping[str, Any]
SpecOf = Callable[[str], Spec | None]
"""The spec of a table by its key; None where it is not known."""

FACETS: Final[Mapping[str, str]] = {
    "network": "network",
    "trained_on": "trained on",
    "branch": "branch",
    "mapping": "mapping network",
    "captioner": "captioner",
    "query_captions": "captions of a query",
    "target_captions": "captions of a target",
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
}
"""Facet -> heading, the most telling first."""

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
    rewrites = [spec for spec in queries if _producer(spec) == "rewrites"]
    found = {
        "network": _each(_network(spec) for spec in specs),
        "branch": _each(_branch(spec) for spec in queries),
        "mapping": _each(_mapping(spec) for spec in queries),
        "captioner": _each(_captioner(spec) for spec in specs),
        "query_captions": _each(_captions(spec) for spec in queries),
        "target_captions": _each(_captions(spec, _first(gallery)) for spec in gallery),
        "generator": _each(_engine(spec["generator"]) for spec in rewrites),
        "edit_prompt": _each(_prompt(spec) for spec in rewrites if spec["step"] == "edit"),
        "objects_prompt": _each(_prompt(spec) for spec in rewrites if spec["step"] == "objects"),
        "asked_about": _each(_asked(spec) for spec in queries),
        "answers": _each(_answers(spec["settings"]) for spec in rewrites),
        "texts": _texts(ranking),
        "weights": "; ".join(_weights(part) for part in parts),
        "preprocessing": _each(_preprocessing(spec) for spec in specs),
        "precision": _each(_precision(spec) for spec in specs),
        "forms": _each(_forms(spec, queries) for spec in queries),
        "reference": "taken out" if ranking.get("exclude_reference") else "kept",
    }
    if not queries or not gallery:
        found = dict.fromkeys(found, NOT_RECORDED) | {
            name: found[name] for name in ("texts", "weights", "reference")
        }
    return {name: found[name] for name in FACETS if found.get(name)}


def made_by(stage: RankingStage) -> dict[str, str]:
    """Facet -> words for a ranking stage; a network's training and the queries' texts as well."""
    from tasks.networks import network_facts
    from tasks.stages.reformulation_features import ReformulatedQueryStage
    from tasks.stages.stage import inputs_of

    inputs = inputs_of([stage])
    specs = {each.spec_key: each.spec for each in inputs}
    made = how_made(stage.spec, specs.get)
    networks = [s.network.checkpoint for s in inputs if isinstance(s, ReformulatedQueryStage)]
    trained = _each(network_facts(each).trained_on for each in networks)
    label = stage.benchmark.texts.label
    own = {"trained_on": trained, "texts": label}
    return in_order({**made, **{facet: words for facet, words in own.items() if words}})


def names_of(stage: RankingStage) -> dict[str, str]:
    """Short hash in `how_made` -> the name that people know, of engines and prompts in folders."""
    from models.prompts.library import load_prompt
    from tasks.stages.captions import CaptionStage
    from tasks.stages.rewrites import RewriteStage
    from tasks.stages.stage import inputs_of

    names: dict[str, str] = {}
    for each in inputs_of([stage]):
        names |= _imports(each)
        if isinstance(each, CaptionStage):
            names[_local(each.spec["captioner"])] = _last_name(each.captioner)
        if isinstance(each, RewriteStage):
            names[_local(each.spec["generator"])] = _last_name(each.generator)
            names[_prompt(each.spec)] = load_prompt(each.prompt).name
    return {own: name for own, name in names.items() if own and name}


def _imports(stage: Stage) -> dict[str, str]:
    """Key of an import -> its files with their hashes."""
    from tasks.imported_texts import imported_source

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
    names = {_local(fingerprint): _last_name(settings)}
    own = {local: name for local, name in names.items() if local and name}
    return named({"engine": _engine(fingerprint)}, own)["engine"]


def differences(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each ledger entry, what tells it from others of its method, backbone and benchmark.

    Args:
        entries: Entries with `method`, `backbone`, `benchmark`, `split`, `world` and `made`.

    Returns:
        Words such as ``captions of a target 1 nucleus``; empty where no other entry has the method.
    """
    alike: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for entry in entries:
        alike.setdefault(_identity(entry), []).append(entry)
    return [_told(entry, alike[_identity(entry)]) for entry in entries]


def _identity(entry: Mapping[str, Any]) -> tuple[str, ...]:
    columns = ("method", "backbone", "benchmark", "split", "world")
    return tuple(entry[name] for name in columns)


def _told(entry: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The facets in which some rows differ, as this one has them."""
    told = []
    for facet, heading in FACETS.items():
        if len({row["made"].get(facet, NONE) for row in rows}) > 1:
            told.append(f"{heading} {entry['made'].get(facet, NONE)}")
    if len(rows) > 1 and not told:  # queries or galleries, or what no facet says
        told.append(f"run {entry['run'][:8]}")
    return ", ".join(told)


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


def _producer(spec: Spec) -> str:
    """`rewrites` of `cirflow/rewrites/2`."""
    return str(spec.get("producer", "")).split("/")[1:2][0] if spec.get("producer") else ""


# --------------------------------------------------------------------------- words of one spec


def _each(words: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(word for word in words if word))


def in_order(made: Mapping[str, str]) -> dict[str, str]:
    """The facets in the order of `FACETS`; those of a later version after them."""
    return {**{name: made[name] for name in FACETS if name in made}, **made}


def _network(spec: Spec) -> str:
    if "network" not in spec:
        return ""
    folder = {name: spec["network"][name] for name in ("network", "config_sha256", "files")}
    return content_key(folder)[:8]


def _branch(spec: Spec) -> str:
    if "network" not in spec:
        return ""
    combined = "" if spec.get("combined") else ", no combiner"
    return f"{spec['network']['branch']}{combined}"


def _mapping(spec: Spec) -> str:
    mapping = spec.get("mapping") or {}
    return f"{mapping['kind']} {mapping['weights_sha256'][:8]}" if mapping else ""


def _captioner(spec: Spec) -> str:
    return _engine(spec["captioner"]) if "captioner" in spec else ""


def _engine(fingerprint: Spec) -> str:
    """An engine by what identifies it: `transformers local-866c1ec7b8c5, adapter 1f2e3d4c`."""
    said = [str(fingerprint[name]) for name in ("engine", "model") if fingerprint.get(name)]
    if fingerprint.get("adapter"):
        said.append(f"with adapter {content_key(fingerprint['adapter'])[:8]}")
    if len(said) < 2:
        said.append(content_key(fingerprint)[:8])
    return " ".join(said)


def _captions(spec: Spec, first: int = 0) -> str:
    """`15 nucleus`; `first 5 of 15 nucleus` where not all of them are read."""
    if "sampling" not in spec or "captioner" not in spec:
        return ""
    sampling = spec["sampling"]
    return f"{f'first {first} of ' if first else ''}{sampling['n']} {sampling['mode']}"


def _first(specs: Iterable[Spec]) -> int:
    """How many captions of an image enter the gallery's features; 0: all."""
    return next((int(spec["first"]) for spec in specs if "first" in spec), 0)


def _prompt(spec: Spec) -> str:
    """Imported answers name no prompt."""
    return f"prompt {spec['prompt']['prompt_sha256'][:8]}" if "prompt" in spec else ""


def _asked(spec: Spec) -> str:
    contents = spec.get("contents", {})
    said = [f"{step} {contents[step]}" for step in ("edits", "objects") if contents.get(step)]
    if contents.get("all_orders"):
        said.append("both orders")
    return ", ".join(said)


def _answers(settings: Spec) -> str:
    if "temperature" not in settings:  # imported
        return f"{settings['parsing']} as imported"
    words = [f"temperature {settings['temperature']:g}", f"{settings['max_new_tokens']} tokens"]
    if settings.get("parsing", "strict") != "strict":
        words.append(str(settings["parsing"]))
    return ", ".join(words)


def _texts(ranking: Spec) -> str:
    """`annotated`, or the source of the texts that replace the annotated ones, and a short hash."""
    source, content = ranking.get("texts", (ANNOTATED, ""))
    return f"{source} {content[:8]}".rstrip()


def _weights(part: Spec) -> str:
    """`.6 edited_captions + .4 text` against `.7 image + .3 captions`."""
    sides = [
        " + ".join(f"{weight:.3g} {name}" for name, (weight, _) in sorted(part[side].items()))
        for side in ("query", "gallery")
    ]
    scaled = f"{part['weight']:g} of " if "weight" in part else ""
    other = part.get("combined_by", {})
    combined = "".join(f", {name} {value}" for name, value in sorted(other.items()))
    norms = "".join(f", {name} {kind}" for name, kind in sorted(part.get("norms", {}).items()))
    return f"{scaled}{sides[0]} | {sides[1]}{combined}{norms}, {part.get('similarity', 'cosine')}"


def _preprocessing(spec: Spec) -> str:
    prepared = (spec.get("encoder") or {}).get("preprocess") or {}
    pad = prepared.get("pad_ratio")
    geometry = f"{prepared.get('geometry', '')}{f' {pad:g}' if pad else ''}"
    pictures = spec.get("pictures") or {}
    return " ".join([geometry, *(f"{k} {v}" for k, v in sorted(pictures.items()))]).strip()


def _precision(spec: Spec) -> str:
    return str((spec.get("encoder") or spec.get("network") or {}).get("dtype", ""))


def _forms(spec: Spec, queries: Sequence[Spec]) -> str:
    """Text forms, of methods that have any: a language model's answers or captions in a text."""
    forms = spec.get("forms")
    if not forms or not any(_producer(each) in ("rewrites", "captions") for each in queries):
        return ""
    stop = "final stop" if forms["final_stop"] else "no final stop"
    others = (f"{name} {forms[name]}" for name in ("no_objects", "fashion_captions", "mean"))
    return ", ".join([stop, *others])


def _local(fingerprint: Spec) -> str:
    model = str(fingerprint.get("model", ""))
    return model if re.fullmatch(r"local-[0-9a-f]+", model) else ""


def _last_name(settings: Any) -> str:
    return re.sub(r"[^\w.+-]+", "-", str(getattr(settings, "model", "")).rstrip("/").split("/")[-1])
