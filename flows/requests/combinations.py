"""Everything that `evaluate-matrix` varies besides backbones: each combination of some lists."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field

from flows.form_fields import Values
from flows.forms import Captioner
from flows.requests.train_reformulation import Groups, groups_of
from flows.requests.triplet_training import triplet_set_of
from models.engine_settings import engine_kinds
from models.generators.settings import GeneratorSettings
from models.settings import Settings
from models.spelling import unknown

if TYPE_CHECKING:
    from tasks.training.triplet_sets import TripletSet

_ENGINES: Final = engine_kinds(GeneratorSettings)
_OF_A_MODEL: Final = ("revision", "identity", "adapter")
"""Settings that say more of a model, and nothing of another one."""
Count = Annotated[int, Field(ge=1, le=100)]


class Vary(Settings):
    """Lists of choices: each combination is evaluated. An empty list keeps the profile's choice."""

    generators: tuple[Values, ...] = ()
    """Text generators: settings as below `generator`, e.g. {"engine": "openai", "model": "gpt-4o",
    "base_url": "https://api.openai.com/v1"}."""
    captioners: tuple[Captioner, ...] = ()
    """Captioners: engine, model and base_url."""
    query_captions: tuple[Count, ...] = ()
    """N of the reference images (cvsi.captions_per_image)."""
    target_captions: tuple[Count, ...] = ()
    """N of the gallery's images (cvsi.target_captions); empty: the profile's, which by default is
    as many as of the references."""
    edit_prompts: tuple[str, ...] = ()
    """Edit prompts, by name or file, for every benchmark."""
    objects_prompts: tuple[str, ...] = ()
    """Prompts for added objects, by name or file."""
    networks: tuple[str, ...] = ()
    """Trained reformulation networks (instructcir.checkpoint)."""
    triplets: tuple[str, ...] = ()
    """Sets of triplets (files triplets.json of generate-triplets): a network is trained on each."""
    sizes: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Train on the first so many pairs of each set; empty: on all."""
    training: Values = Field(default_factory=dict)
    """Groups of train-reformulation's settings for these trainings, e.g. {"training": {"epochs":
    6}}."""


@dataclass(frozen=True)
class NetworkPlan:
    """A reformulation network that is trained first.

    Attributes:
        triplets: What it sees.
        groups: Settings of its training.
    """

    triplets: TripletSet
    groups: Groups


@dataclass(frozen=True)
class Combination:
    """One choice of each list.

    Attributes:
        name: What differs, in words; empty where nothing is varied.
        settings: Settings that replace the profile's.
        network: A network that is trained first; None for the profile's.
    """

    name: str
    settings: Values
    network: NetworkPlan | None


ONLY: Final = Combination("", {}, None)
"""Nothing is varied."""


@dataclass(frozen=True)
class _Choice:
    name: str
    settings: Values
    network: NetworkPlan | None = None


NOTHING: Final = Vary()
"""Only backbones are varied."""


def combinations(vary: Vary, families: Sequence[str]) -> Iterator[Combination]:
    """Every combination, the last list fastest.

    Args:
        vary: The lists.
        families: Benchmark families whose edit prompt is replaced.

    Raises:
        ValueError: lists that exclude each other, two choices with one name, or triplets that
            cannot be found.
    """
    if vary.networks and vary.triplets:
        raise ValueError("give vary.networks or vary.triplets: the latter trains the networks")
    if (vary.sizes or vary.training) and not vary.triplets:
        raise ValueError("vary.sizes and vary.training are of trainings: name vary.triplets too")
    axes = [axis for axis in _axes(vary, families) if axis]
    for axis in axes:
        names = [choice.name for choice in axis]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two choices of a list are called {', '.join(twice)}: leave one out")
    for choices in itertools.product(*axes):
        settings: Values = {}
        for choice in choices:
            settings |= choice.settings
        yield Combination(
            name=", ".join(choice.name for choice in choices),
            settings=settings,
            network=next((choice.network for choice in choices if choice.network), None),
        )


def _axes(vary: Vary, families: Sequence[str]) -> Iterator[list[_Choice]]:
    yield [_Choice(_model(own), _generator(own)) for own in vary.generators]
    yield [
        _Choice(f"captions by {_base(own.model) or own.engine}", own.settings())
        for own in vary.captioners
    ]
    yield [
        _Choice(f"{n} captions of a query", {"cvsi.captions_per_image": n})
        for n in vary.query_captions
    ]
    yield [
        _Choice(f"{n} captions of a target", {"cvsi.target_captions": n})
        for n in vary.target_captions
    ]
    yield [
        _Choice(f"edit prompt {name}", {f"prompts.edit.{family}": own for family in families})
        for own, name in _named(vary.edit_prompts)
    ]
    yield [
        _Choice(f"objects prompt {name}", {"prompts.objects": own})
        for own, name in _named(vary.objects_prompts)
    ]
    yield [
        _Choice(f"network {name}", {"instructcir.checkpoint": own})
        for own, name in _named(vary.networks)
    ]
    yield list(_trained(vary))


def _trained(vary: Vary) -> Iterator[_Choice]:
    groups = groups_of(vary.training)
    for place in vary.triplets:
        whole = triplet_set_of(place)
        for size in vary.sizes or (whole.count,):
            plan = NetworkPlan(whole.first(size), groups)
            yield _Choice(f"trained on {size:,} triplets {whole.spec_key[:8]}", {}, plan)


def _generator(own: Values) -> Values:
    """Settings of a generator; what is said of the profile's model does not hold for another."""
    engine = own.get("engine")
    if engine is not None and engine not in _ENGINES:
        raise ValueError(unknown("engine of vary.generators", str(engine), _ENGINES))
    fields = _ENGINES[engine].model_fields if engine else {}
    fresh = {name: "" for name in _OF_A_MODEL if name in fields and "model" in own}
    return {f"generator.{name}": value for name, value in (fresh | own).items()}


def _model(own: Values) -> str:
    """Such as `gpt-4o`, or all settings where no model is named."""
    others = {name: value for name, value in own.items() if name not in ("engine", "base_url")}
    model = _base(str(others.pop("model", "")))
    said = [model, *(f"{name} {value}" for name, value in others.items())]
    return f"answers by {' '.join(word for word in said if word) or own.get('engine', 'profile')}"


def _named(places: Sequence[str]) -> list[tuple[str, str]]:
    """Each place with its last parts, as many as tell different places apart."""
    paths = [Path(os.path.normpath(own)) for own in places]
    names: list[str] = []
    for count in range(1, 1 + max((len(path.parts) for path in paths), default=0)):
        names = ["/".join(path.parts[-count:]).removesuffix(".md") for path in paths]
        if len(set(names)) == len(set(paths)):
            break
    return list(zip(places, names, strict=True))


def _base(place: str) -> str:
    """The last part of a path or of a hub's name."""
    return Path(place).name.removesuffix(".md")
