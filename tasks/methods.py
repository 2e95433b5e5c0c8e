"""Methods under a profile's settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from models.generators.adapter_card import benchmark_texts_seen
from models.retrieval.cvsi_settings import CVSI, SEARCH_FAMILY, CvsiSettings
from models.retrieval.features import COMPOSED
from models.retrieval.gate_files import GATE_FILE
from models.retrieval.ldre import LDRE, LdreSettings
from models.retrieval.method_records import Method, late_fusion
from models.retrieval.methods import METHODS, VERIFIER, method, needs
from models.retrieval.systems.compodiff import COMPODIFF
from models.retrieval.systems.composed_embedding import EMBEDDER, EMBEDDING
from models.retrieval.systems.instructcir import INSTRUCTCIR_WEIGHTS
from models.retrieval.systems.instructpix2pix import EDITED
from models.retrieval.systems.query_weights import GATE, NO_GATE
from storage.locations.location import Location
from tasks.compodiff import denoiser_facts, denoiser_problem
from tasks.engines import embedder_facts, verifier_fingerprint, why_no_pseudo_tokens
from tasks.mapping_facts import token_network_not_zero_shot
from tasks.networks import network_facts, network_problem, texts_seen_by
from tasks.settings import Profile

_WRITTEN: Final = frozenset(("edits", "single_edit", "objects"))
"""Needs that the text generator serves."""
_SPLICED: Final = ("mapping:", "tokens:")
"""Begin needs for which a text tower reads a pseudo token."""


def settings_of(name: str, profile_settings: CvsiSettings) -> CvsiSettings:
    """The settings a method runs under: the profile's, unless the row brings its own.

    Preprocessing is the method's, unless the settings name one for all methods.
    """
    row = method(name)
    chosen = profile_settings if row.settings is CVSI else row.settings
    return chosen.prepared_as(row.preprocess)


def configured_method(
    name: str,
    settings: CvsiSettings,
    weights: Mapping[str, float] = INSTRUCTCIR_WEIGHTS,
    ldre: LdreSettings = LDRE,
) -> Method:
    """A method with the CVSI weights, means and similarity of `settings`.

    Args:
        name: A method of `METHODS`.
        settings: CVSI's choices.
        weights: Benchmark family -> weight of the second method in a late fusion.
        ldre: How LDRE weighs captions.
    """
    row = method(name)
    if row.configured_by is not None:
        return replace(row, make=row.configured_by(ldre))
    if row.blends is not None:
        first, second = (configured_method(part, settings) for part in row.blends)
        return replace(row, settings=settings, make=late_fusion(first, second, weights))
    if row.group not in ("complementary", "ablation") or not row.runs:
        return row
    return replace(row, settings=settings)


def late_weights(name: str, profile: Profile) -> Mapping[str, float]:
    """Benchmark family -> weight of the second method in a late fusion."""
    row = method(name)
    if row.weighs:  # a gate says what each part weighs; here both methods must be there
        return INSTRUCTCIR_WEIGHTS
    blends = row.blends or ("", "")
    return profile.embedding_weights if blends[1] == EMBEDDING else profile.instructcir.weights


def why_not_ready(name: str, profile: Profile, trains_network: bool = False) -> str:
    """Why a method does not run under a profile; empty where it does.

    A checkpoint that the profile names and that is missing is a reason too, unless the
    reformulation network is trained first.
    """
    row = method(name)
    wanted = needs(row, SEARCH_FAMILY) if row.runs else ()
    spliced = any(need.startswith(_SPLICED) for need in wanted)
    if spliced and (reason := why_no_pseudo_tokens(profile.query_encoder)):
        return reason
    if VERIFIER in wanted and profile.verify.why_not:
        return profile.verify.why_not
    if row.status != "needs_checkpoint":
        return row.reason
    for need in wanted:
        kind, _, which = need.partition(":")
        if kind == "mapping" and not profile.mapping.named[which]:
            return row.reason
        if need == "tokens:palavra" and not profile.mapping.palavra:
            return row.reason
        if need == "tokens:oti" and not (profile.inversion.tokens or profile.inversion.concepts):
            return row.reason
        if kind == "reformulation" and not trains_network:
            return network_problem(profile.instructcir.checkpoint)
        if kind == COMPODIFF:
            return denoiser_problem(profile.compodiff, profile.query_encoder)
        if kind == EDITED:
            return profile.editor.lacking
        if kind == EMBEDDER:
            return profile.embedder.lacking
        if f"{kind}:" == GATE:
            problem = _gate_problem(profile.query_weights.get(which, ""), which)
            if problem:
                return problem
        if kind == "composed":
            problem = network_problem(profile.composed.get(which, ""), which)
            if problem:
                return problem
    return ""


def _gate_problem(folder: str, name: str) -> str:
    """Why weights for each query are missing; empty where a folder holds them."""
    if not folder:
        return NO_GATE.format(name=name)
    if not Location(folder).exists(GATE_FILE):
        return f"{folder} holds no {GATE_FILE} (query_weights.{name}); {NO_GATE.format(name=name)}"
    return ""


def runnable_methods(profile: Profile, trains_network: bool = False) -> list[str]:
    """Methods that need nothing except the profile, and that its models can serve."""
    suited = (name for name in METHODS if name not in profile.unsuited)
    return [name for name in suited if not why_not_ready(name, profile, trains_network)]


def left_out(profile: Profile, trains_network: bool = False) -> dict[str, str]:
    """The methods of this project that `runnable_methods` leaves out, each with its reason."""
    why = {
        name: why_not_ready(name, profile, trains_network)
        for name, row in METHODS.items()
        if row.runs
    }
    why |= dict.fromkeys(profile.unsuited, "it runs only where it is named (`unsuited`)")
    return {name: reason for name, reason in why.items() if reason}


def label_of(name: str, profile: Profile) -> str:
    """The label that all numbers of a method must carry; empty for most methods.

    Raises:
        CheckpointError: the method needs a network that is missing.
    """
    from tasks.scoring.ledger import not_zero_shot  # brings the reader of tables

    wanted = set(needs(method(name), SEARCH_FAMILY))
    used = [profile.network] if "reformulation" in wanted else []
    used += [
        profile.composed_network(need.removeprefix(COMPOSED))
        for need in wanted
        if need.startswith(COMPOSED)
    ]
    reasons = [network_facts(network.checkpoint).zero_shot_reason for network in used]
    if COMPODIFF in wanted:
        reasons.append(denoiser_facts(profile.compodiff.checkpoint).not_zero_shot)
    reasons += [token_network_not_zero_shot(each) for each in _token_networks(wanted, profile)]
    asks = VERIFIER in wanted and profile.verify.writes_questions
    if wanted & _WRITTEN or asks or ("tokens:oti" in wanted and not profile.inversion.phrases):
        own = profile.generator
        seen = benchmark_texts_seen(getattr(own, "model", ""), getattr(own, "adapter", ""))
        reasons.append(texts_seen_by({"saw_benchmark_texts": seen}))
    if EMBEDDER in wanted:
        reasons.append(texts_seen_by(embedder_facts(profile.embedder)[0]))
    if VERIFIER in wanted:
        reasons.append(texts_seen_by(verifier_fingerprint(profile.verify.asked_verifier)))
    reason = next(filter(None, reasons), "")
    return not_zero_shot({"zero_shot": False, "zero_shot_reason": reason}) if reason else ""


def _token_networks(wanted: Collection[str], profile: Profile) -> list[str]:
    """Folders and files of the networks that make the pseudo tokens of some needs."""
    kinds = sorted(need.partition(":")[2] for need in wanted if need.startswith("mapping:"))
    found = [profile.mapping.of(kind) for kind in kinds]
    if "tokens:palavra" in wanted:
        found.append(profile.mapping.palavra)
    return [each for each in found if each]
