"""A verifier's margins of the best images of one query that a person asks, in each mode."""

from __future__ import annotations

from collections.abc import Sequence

from models.verifiers.protocol import RANKED
from models.verifiers.questions import combined
from tasks.engines import load_generator
from tasks.query_sets import OneQuery
from tasks.settings import Profile
from tasks.stages.image_sets import ImageSet
from tasks.stages.list_verifications import CandidateList, choices_of
from tasks.stages.questions import questions_of
from tasks.stages.verifications import Pair, verifications_of


def margins_of(
    profile: Profile, collection: str, query: OneQuery, reference: bytes, candidates: Sequence[str]
) -> dict[str, float]:
    """Image id -> margin, of those that the verifier could answer for.

    Raises:
        ValueError: The verifier cannot answer in the profile's mode, or reads edited captions,
            which a search does not make for it.
    """
    chosen = profile.verify
    if reason := chosen.why_not:
        raise ValueError(reason)
    data = {
        **dict(ImageSet(collection=collection).read(profile.root, candidates)),
        query.image_id: reference,
    }
    if chosen.mode == "listwise":
        return _in_a_list(profile, query, data, candidates)
    texts = _questions(profile, query.text) if chosen.mode == "questions" else (query.text,)
    pairs = {
        (name, text): Pair(query.image_id, text, name) for name in candidates for text in texts
    }
    found = verifications_of(
        chosen.asked_verifier,
        profile.pictures,
        {pair.key: pair for pair in pairs.values()},
        data,
        lambda count: None,
    )
    margins = {
        place: made.margin
        for place, pair in pairs.items()
        if (made := found[pair.key]).margin is not None and made.status in RANKED
    }
    whole = [name for name in candidates if texts and all((name, t) in margins for t in texts)]
    score = chosen.questions.score
    return {name: combined([margins[name, text] for text in texts], score) for name in whole}


def _in_a_list(
    profile: Profile, query: OneQuery, data: dict[str, bytes], candidates: Sequence[str]
) -> dict[str, float]:
    if len(candidates) < 2:
        return {}
    chosen = profile.verify
    own = CandidateList(query.image_id, query.text, tuple(candidates))
    lists = {each.key: each for each in own.drawn(chosen.listwise.orders)}
    found = choices_of(
        chosen.asked_verifier,
        profile.pictures,
        lists,
        data,
        lambda count: None,
        chosen.listwise,
    )
    answered = [
        dict(zip(lists[key].candidates, made.margins, strict=True))
        for key, made in found.items()
        if made.status in RANKED
    ]
    return {
        name: sum(each[name] for each in answered) / len(answered)
        for name in (candidates if answered else ())
    }


def _questions(profile: Profile, text: str) -> tuple[str, ...]:
    """The questions about one text; none where they could not be drawn."""
    chosen = profile.verify.questions
    generator = profile.generator if profile.verify.writes_questions else None
    loaded = load_generator(generator) if generator else None
    found = questions_of({"": text}, chosen, generator, loaded, lambda count: None)
    return found[""][0].texts
