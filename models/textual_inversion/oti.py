"""SEARLE-OTI: the pseudo token of an image by optimisation (Baldrati et al., ICCV 2023, 3.1).

A random token v of an image with feature i = f_v(image) takes AdamW steps on

    L = (w_i L_cos + w_p L_phrase) / (w_i + w_p)
    L_cos    = 1 - cos(f_t(sentence with v), i)
    L_phrase = 1 - cos(f_t(phrase with v in place of its concept), f_t(phrase))

with a new sentence and a new phrase for each step; the phrase is about one of the image's
nearest concepts. The result is the moving average of v over the steps. AdamW is element-wise and
the losses of a batch are summed, so that tokens do not influence each other, and everything random
follows from (seed, image): the batch that an image falls into changes its token by rounding only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from models.spelling import agreed
from models.textual_inversion.concepts import spliced_phrase
from models.textual_inversion.losses import cosine_distances
from models.textual_inversion.templates import TEMPLATES

if TYPE_CHECKING:
    from models.encoders.text_tokens import TokenRow
    from models.encoders.text_tower import TextTower
    from models.protocols import FloatArray
    from models.textual_inversion.oti_settings import OtiSettings

Phrase = tuple[str, str]
"""A concept, and a phrase in which it occurs."""


@dataclass(frozen=True)
class Draws:
    """Everything random about one image.

    Attributes:
        token: (dt,) float32, where optimisation starts.
        templates: (S,) number of the sentence of each step.
        phrases: Concept and phrase of each step; empty where no phrase is weighed.
    """

    token: FloatArray
    templates: np.ndarray
    phrases: tuple[Phrase, ...]


def draws(
    key: str,
    concepts: Sequence[str],
    phrases: Mapping[str, Sequence[str]],
    width: int,
    settings: OtiSettings,
) -> Draws:
    """The draws of an image.

    Args:
        key: Its content key.
        concepts: Its nearest concepts, all of which have phrases; unread if none is weighed.
        phrases: Concept -> its phrases.
        width: dt.
        settings: Steps, seed, deviation.
    """
    digest = hashlib.sha256(f"{settings.seed} {key}".encode()).digest()
    rng = np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
    token = rng.normal(0.0, settings.deviation, width).astype(np.float32)
    templates = rng.integers(len(TEMPLATES), size=settings.steps)
    chosen: list[Phrase] = []
    for _ in range(settings.steps if settings.phrase_weight else 0):
        concept = concepts[int(rng.integers(len(concepts)))]
        own = phrases[concept]
        chosen.append((concept, own[int(rng.integers(len(own)))]))
    return Draws(token, templates, tuple(chosen))


def optimised_tokens(
    tower: TextTower, features: FloatArray, drawn: Sequence[Draws], settings: OtiSettings
) -> FloatArray:
    """The moving averages of optimised tokens.

    Args:
        tower: Frozen text tower in fp32; tokens are optimised where it lies.
        features: (B, d) image features.
        drawn: The draws of each image.
        settings: Steps, rates, weights.

    Returns:
        (B, dt) float32.

    Raises:
        FloatingPointError: The loss is not finite.
    """
    if not drawn:
        return np.zeros((0, tower.width), np.float32)
    tower = tower.eval().requires_grad_(False)
    device = tower.positional.device
    images = torch.from_numpy(np.ascontiguousarray(features, np.float32)).to(device)
    start = torch.from_numpy(np.stack([own.token for own in drawn])).to(device)
    token = start.clone().requires_grad_(True)
    average = start.clone()
    optimizer = torch.optim.AdamW(
        [token], lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    sentences = [tower.tokens.spliced_row(template) for template in TEMPLATES]
    phrases = _Phrases(tower, drawn) if settings.phrase_weight else None
    for step in range(settings.steps):
        rows = [sentences[own.templates[step]] for own in drawn]
        distances = settings.image_weight * cosine_distances(encoded(tower, rows, token), images)
        if phrases is not None:
            own, wanted = phrases.at(step)
            distances = distances + settings.phrase_weight * cosine_distances(
                encoded(tower, own, token), wanted
            )
        loss = distances.sum() / (settings.image_weight + settings.phrase_weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.lerp_(token.detach(), 1 - settings.ema)
    if not torch.isfinite(average).all():
        raise FloatingPointError(
            f"pseudo tokens are not finite after {settings.steps} "
            f"{agreed(settings.steps, 'step')}; lower oti.learning_rate "
            f"({settings.learning_rate}) or check the backbone's weights"
        )
    return average.cpu().numpy()


def encoded(tower: TextTower, rows: Sequence[TokenRow], tokens: torch.Tensor) -> torch.Tensor:
    """Features (B, d) of rows with a pseudo token each (B, dt), differentiable in the tokens."""
    from models.encoders.text_tower import pad_rows

    ids, lengths, holes = (part.to(tower.positional.device) for part in pad_rows(rows))
    return tower(ids, lengths, holes, tokens)


class _Phrases:
    """The phrases of all steps: rows with a hole, and features of the whole phrases."""

    def __init__(self, tower: TextTower, drawn: Sequence[Draws]) -> None:
        self._drawn = drawn
        distinct = list(dict.fromkeys(each for own in drawn for each in own.phrases))
        self._rows = {
            (concept, phrase): tower.tokens.spliced_row(spliced_phrase(phrase, concept))
            for concept, phrase in distinct
        }
        texts = list(dict.fromkeys(phrase for _, phrase in distinct))
        features = tower.encode_rows([tower.tokens.row(text) for text in texts])
        self._features = torch.from_numpy(features).to(tower.positional.device)
        self._places = {text: place for place, text in enumerate(texts)}

    def at(self, step: int) -> tuple[list[TokenRow], torch.Tensor]:
        """Rows with a hole, and the features (B, d) of the same phrases without one."""
        chosen = [own.phrases[step] for own in self._drawn]
        places = [self._places[phrase] for _, phrase in chosen]
        return [self._rows[each] for each in chosen], self._features[places]
