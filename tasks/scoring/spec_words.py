"""Facets of one spec in words; each is empty for a spec that says nothing of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from storage.tables.keys import content_key
from tasks.query_texts import ANNOTATED

Spec = Mapping[str, Any]

_SAMPLER: Final = ("steps", "text_guidance", "image_guidance", "resolution", "seed")
"""Settings of an image editor that the facet `editor` says."""
_TOLD: Final[Mapping[str, tuple[str, ...]]] = {
    "captioner": ("engine", "model"),
    "generator": ("engine", "model"),
    "verifier": ("engine", "model"),
    "embedder": ("engine", "model"),
    "encoder": ("model", "pretrained", "weights_sha256", "dtype", "geometry", "pad_ratio"),
    "network": ("branch", "dtype"),
    "editor": ("engine", "model", *_SAMPLER),
}
"""Part of a spec with a fingerprint -> what of it other facets say."""
_SAMPLED: Final = ("temperature", "max_new_tokens", "top_p", "seed", "parsing")
"""Settings that the facet `answers` says."""


def each(words: Iterable[str]) -> str:
    """Distinct words, joined."""
    return " and ".join(dict.fromkeys(word for word in words if word))


def network(spec: Spec) -> str:
    """Short hash of a reformulation network."""
    if "network" not in spec:
        return ""
    folder = {name: spec["network"][name] for name in ("network", "config_sha256", "files")}
    return content_key(folder)[:8]


def denoiser(spec: Spec) -> str:
    """Short hash of CompoDiff's denoiser, and the encoder of its texts where it has its own."""
    if "compodiff" not in spec:
        return ""
    text_model = spec["compodiff"].get("text_model", {})
    texts = f", texts by {text_model['model']} {text_model['files'][:8]}" if text_model else ""
    return f"{content_key(spec['compodiff']['denoiser'])[:8]}{texts}"


def sampled(spec: Spec) -> str:
    """How CompoDiff samples: `calls 10, draws 2, eta 1, image_guidance 1.5, ...`."""
    return listed(spec["compodiff"]["sampling"], ()) if "compodiff" in spec else ""


def second_stage(ranking: Spec, spec_of: Callable[[str], Spec | None]) -> str:
    """`network 1a2b3c4d over the first 50`: what orders the best images again; empty without."""
    if "second_stage" not in ranking:
        return ""
    spec = spec_of(ranking["second_stage"])
    name = f"network {network(spec)}" if spec else "a network"
    return f"{name} over the first {ranking['candidates']}"


def verifier(ranking: Spec, spec_of: Callable[[str], Spec | None]) -> str:
    """`qwen3-vl local-1a2b over the first 25, minmax 0.5`: who looks at the best images; empty
    without."""
    if "verifications" not in ranking:
        return ""
    spec, rule = spec_of(ranking["verifications"]), dict(ranking["fusing"])
    name = engine(spec["verifier"]) if spec else "a verifier"
    said = " ".join(map(str, rule.values()))
    return f"{name}{_mode(ranking, spec_of)} over the first {ranking['candidates']}, {said}"


def _mode(ranking: Spec, spec_of: Callable[[str], Spec | None]) -> str:
    """How a verifier was asked, where not about each candidate alone: `, listwise`."""
    if ranking.get("mode") == "listwise":
        return ", listwise" + (f" in {ranking['orders']} orders" if ranking["orders"] > 1 else "")
    if ranking.get("mode") != "questions":
        return ""
    spec = spec_of(ranking["questions"]) or {}
    source = engine(spec["generator"]) if "generator" in spec else "rule"
    asked = f"{source} {prompt(spec)}".strip()
    return f", questions of {asked}, {ranking['score']},"


def branch(spec: Spec) -> str:
    """Weights of a reformulation network that answer, and whether the text's own feature is
    combined; empty for networks with one set of weights."""
    if "branch" not in spec.get("network", {}):
        return ""
    combined = "" if spec.get("combined") else ", no combiner"
    return f"{spec['network']['branch']}{combined}"


def mapping(spec: Spec) -> str:
    """Kind and short hash of a mapping network, or how pseudo tokens were made without one."""
    if str(spec.get("producer", "")).startswith("cirflow/imported_tokens/"):
        return f"imported tokens {spec['imported'][:8]}"
    if "oti" in spec:
        return f"tokens of {spec['oti']['steps']} steps {content_key(spec)[:8]}"
    if "network_of_sets" in spec:
        network = spec["network_of_sets"]["weights_sha256"][:8]
        return f"encoder of sets {network}, refined by {listed(spec['refining'], ())}"
    mapping = spec.get("mapping") or {}
    return f"{mapping['kind']} {mapping['weights_sha256'][:8]}" if mapping else ""


def embedder(spec: Spec) -> str:
    """The embedding model, with a short hash of its form, and what queries ask of it."""
    if "embedder" not in spec:
        return ""
    form = spec["embedder"].get("form")
    said = f"{engine(spec['embedder'])}{f' form {content_key(form)[:8]}' if form else ''}"
    asked = spec.get("instruction", "")
    return f"{said} asked {asked!r}" if asked else said


def captioner(spec: Spec) -> str:
    """The captioner."""
    return engine(spec["captioner"]) if "captioner" in spec else ""


def editor(spec: Spec) -> str:
    """The image editor, with its sampler where it ran here."""
    if "editor" not in spec:
        return ""
    own = spec["editor"]
    sampler = listed({name: own[name] for name in _SAMPLER if name in own}, ())
    return f"{engine(own)}{f', {sampler}' if sampler else ''}"


def engine(fingerprint: Spec) -> str:
    """An engine by what identifies it: `transformers local-866c1ec7b8c5, adapter 1f2e3d4c`."""
    said = [str(fingerprint[name]) for name in ("engine", "model") if fingerprint.get(name)]
    if fingerprint.get("adapter"):
        said.append(f"with adapter {content_key(fingerprint['adapter'])[:8]}")
    if len(said) < 2:
        said.append(content_key(fingerprint)[:8])
    return " ".join(said)


def captions(spec: Spec, first: int = 0) -> str:
    """`15 nucleus`; `first 5 of 15 nucleus` where not all of them are read."""
    if "sampling" not in spec or "captioner" not in spec:
        return ""
    sampling = spec["sampling"]
    return f"{f'first {first} of ' if first else ''}{sampling['n']} {sampling['mode']}"


def first(specs: Iterable[Spec]) -> int:
    """How many captions of an image enter the gallery's features; 0: all."""
    return next((int(spec["first"]) for spec in specs if "first" in spec), 0)


def captioning(spec: Spec) -> str:
    """Everything else about sampling: `max_new_tokens 30, seed 0, temperature 1, top_p 0.9`."""
    if "sampling" not in spec or "captioner" not in spec:
        return ""
    return listed(spec["sampling"], ("n", "mode"))


def engine_details(spec: Spec) -> str:
    """What a fingerprint says besides what other facets say, and how answers were read."""
    role = next((name for name in _TOLD if name in spec), "")
    own = spec.get(role) or {}
    values = {**own, **(own.get("preprocess") or {})}
    details = listed(values, (*_TOLD.get(role, ()), "preprocess"))
    read = listed(spec.get("settings", {}), _SAMPLED) if role == "generator" else ""
    said = [f"{role} {details}" if details else "", f"answers with {read}" if read else ""]
    return ", ".join(each for each in said if each)


def listed(values: Spec, without: Sequence[str]) -> str:
    """The single values of a mapping in words, hashes shortened."""
    shown = {
        name: str(value)[:8] if name.endswith("sha256") else _plain(value)
        for name, value in sorted(values.items())
        if name not in without and value != "" and isinstance(value, str | int | float | list)
    }
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def _plain(value: str | float | list[Any]) -> str:
    if isinstance(value, list):
        return "/".join(map(_plain, value))
    if isinstance(value, str) and not value.isprintable():
        return repr(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def version(spec: Spec) -> str:
    """Kind and version of a table, such as `captions/1`."""
    return str(spec.get("producer", "")).removeprefix("cirflow/")


def data(ranking: Spec) -> str:
    """Short hashes of the queries and of the gallery."""
    sides = {"queries": ranking.get("queries", ""), "gallery": ranking.get("galleries", "")}
    return ", ".join(f"{side} {str(key)[:8]}" for side, key in sides.items() if key)


def prompt(spec: Spec) -> str:
    """Short hash of a prompt; imported answers name none."""
    return f"prompt {spec['prompt']['prompt_sha256'][:8]}" if "prompt" in spec else ""


def asked(spec: Spec) -> str:
    """What a language model was asked about: `edits per_caption, both orders`."""
    contents = spec.get("contents", {})
    said = [f"{step} {contents[step]}" for step in ("edits", "objects") if contents.get(step)]
    if contents.get("all_orders"):
        said.append("both orders")
    return ", ".join(said)


def answers(settings: Spec) -> str:
    """How answers were sampled, and read where not strictly."""
    if "temperature" not in settings:  # imported
        return f"{settings['parsing']} as imported"
    words = [f"temperature {settings['temperature']:g}", f"{settings['max_new_tokens']} tokens"]
    words += [f"{name} {settings[name]:g}" for name in ("top_p", "seed") if name in settings]
    if settings.get("parsing", "strict") != "strict":
        words.append(str(settings["parsing"]))
    return ", ".join(words)


def texts(ranking: Spec) -> str:
    """`annotated`, or the source of the texts that replace the annotated ones, and a short hash."""
    source, content = ranking.get("texts", (ANNOTATED, ""))
    return f"{source} {content[:8]}".rstrip()


def without(ranking: Spec) -> str:
    """How many images of the gallery lack a feature; empty for none."""
    lacking = ranking.get("without")
    return f"{lacking['images']:,}" if lacking else ""


def weights(part: Spec) -> str:
    """`.6 edited_captions + .4 text` against `.7 image + .3 captions`."""
    sides = [
        " + ".join(f"{weight:g} {name}" for name, (weight, _) in sorted(part[side].items()))
        for side in ("query", "gallery")
    ]
    scaled = f"{part['weight']:g} of " if "weight" in part else ""
    other = part.get("combined_by", {})
    combined = "".join(f", {name} {value}" for name, value in sorted(other.items()))
    norms = "".join(f", {name} {kind}" for name, kind in sorted(part.get("norms", {}).items()))
    return f"{scaled}{sides[0]} | {sides[1]}{combined}{norms}, {part.get('similarity', 'cosine')}"


def preprocessing(spec: Spec) -> str:
    """From files to the input of an encoder."""
    prepared = (spec.get("encoder") or {}).get("preprocess") or {}
    pad = prepared.get("pad_ratio")
    geometry = f"{prepared.get('geometry', '')}{f' {pad:g}' if pad else ''}"
    pictures = spec.get("pictures") or {}
    return " ".join([geometry, *(f"{k} {v}" for k, v in sorted(pictures.items()))]).strip()


def precision(spec: Spec) -> str:
    """Precision of an encoder."""
    return str((spec.get("encoder") or spec.get("network") or {}).get("dtype", ""))


def forms(spec: Spec, queries: Sequence[Spec]) -> str:
    """Text forms, of methods that have any: a language model's answers or captions in a text."""
    forms = spec.get("forms")
    if not forms or not any(producer(each) in ("rewrites", "captions") for each in queries):
        return ""
    stop = "final stop" if forms["final_stop"] else "no final stop"
    others = (f"{name} {forms[name]}" for name in ("no_objects", "fashion_captions", "mean"))
    return ", ".join([stop, *others])


def local(fingerprint: Spec) -> str:
    """The model of an engine that was read from a folder, by its short hash."""
    model = str(fingerprint.get("model", ""))
    return model if re.fullmatch(r"local-[0-9a-f]+", model) else ""


def last_name(settings: Any) -> str:
    """Name of an engine's model without folders and characters that tables cannot show."""
    return re.sub(r"[^\w.+-]+", "-", str(getattr(settings, "model", "")).rstrip("/").split("/")[-1])


def producer(spec: Spec) -> str:
    """`rewrites` of `cirflow/rewrites/2`."""
    return str(spec.get("producer", "")).split("/")[1:2][0] if spec.get("producer") else ""
