"""SEARLE-OTI against a naive loop, and what it must not depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from flows.profiles import EMBEDDED
from models.encoders.spec import EncoderSpec
from models.textual_inversion.oti_settings import OtiSettings

if TYPE_CHECKING:
    from models.encoders.open_clip import OpenClipEncoder
    from models.textual_inversion.oti import Draws

PHRASES = {
    "cat": ("a photo of cat that sits on a mat", "my cat and your cat"),
    "red hat": ("a photo of red hat that is old",),
}
KEYS = ("a" * 64, "b" * 64, "c" * 64)


def drawn(encoder: OpenClipEncoder, key: str, settings: OtiSettings) -> Draws:
    from models.textual_inversion.oti import draws

    return draws(key, list(PHRASES), PHRASES, encoder.token_width, settings)


def images(encoder: OpenClipEncoder, count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, encoder.dim)).astype(np.float32)


def naive_text(encoder: OpenClipEncoder, before: str, after: str, token):
    """f_t of a text with a pseudo token by open_clip's own modules, all 77 positions."""
    import torch

    model, tokenizer = encoder.model, encoder.tokenizer
    ids = [
        tokenizer.sot_token_id,
        *tokenizer.encode(before),
        tokenizer.eot_token_id if token is not None else None,
        *tokenizer.encode(after),
        tokenizer.eot_token_id,
    ]
    hole = 1 + len(tokenizer.encode(before))
    ids = [each for each in ids if each is not None]
    last = len(ids) - 1
    x = model.token_embedding(torch.tensor([ids + [0] * (77 - len(ids))]))
    if token is not None:
        x = torch.cat([x[:, :hole], token[None, None], x[:, hole + 1 :]], dim=1)
    x = model.transformer(x + model.positional_embedding, attn_mask=model.attn_mask)
    return model.ln_final(x)[0, last] @ model.text_projection


def test_the_steps_are_those_of_the_formulas(encoder: OpenClipEncoder) -> None:
    import torch

    from models.textual_inversion.oti import optimised_tokens
    from models.textual_inversion.templates import TEMPLATES

    settings = OtiSettings(steps=5)
    own = drawn(encoder, KEYS[0], settings)
    image = torch.from_numpy(images(encoder)[0])
    v, ema = torch.from_numpy(own.token.copy()), torch.from_numpy(own.token.copy())
    first, second = torch.zeros_like(v), torch.zeros_like(v)
    for step in range(5):
        v.requires_grad_(True)
        template = TEMPLATES[own.templates[step]]
        concept, phrase = own.phrases[step]
        before, _, after = phrase.partition(concept)
        sentence = naive_text(encoder, template.before, template.after, v)
        with_token = naive_text(encoder, before, after, v)
        with torch.no_grad():
            whole = naive_text(encoder, phrase, "", None)
        cos = torch.nn.functional.cosine_similarity
        loss = (
            1.0 * (1 - cos(sentence, image, dim=0)) + 0.5 * (1 - cos(with_token, whole, dim=0))
        ) / 1.5
        (g,) = torch.autograd.grad(loss, v)
        v = v.detach()
        first = 0.9 * first + 0.1 * g
        second = 0.999 * second + 0.001 * g * g
        t = step + 1
        v = v * (1 - 0.02 * 0.01)
        v = v - 0.02 * (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
        ema = 0.99 * ema + 0.01 * v
    (found,) = optimised_tokens(encoder.tower, images(encoder)[:1], [own], settings)
    np.testing.assert_allclose(found, ema.numpy(), atol=2e-5)


def test_a_token_does_not_depend_on_its_batch(encoder: OpenClipEncoder) -> None:
    from models.textual_inversion.oti import optimised_tokens

    settings = OtiSettings(steps=20)
    all_draws = [drawn(encoder, key, settings) for key in KEYS]
    together = optimised_tokens(encoder.tower, images(encoder), all_draws, settings)
    alone = [
        optimised_tokens(encoder.tower, images(encoder)[i : i + 1], [all_draws[i]], settings)[0]
        for i in (2, 0)
    ]
    np.testing.assert_allclose(together[[2, 0]], np.stack(alone), atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 0.01


def test_draws_follow_from_seed_and_image(encoder: OpenClipEncoder) -> None:
    settings = OtiSettings(steps=400)
    one, again = (drawn(encoder, KEYS[0], settings) for _ in range(2))
    np.testing.assert_array_equal(one.token, again.token)
    assert one.phrases == again.phrases
    other = drawn(encoder, KEYS[1], settings)
    reseeded = drawn(encoder, KEYS[0], settings.changed(seed=1))
    assert one.phrases != other.phrases
    assert one.phrases != reseeded.phrases
    # Concepts are drawn first, then one of their phrases; every sentence occurs.
    assert {phrase for _, phrase in one.phrases} == {p for own in PHRASES.values() for p in own}
    share = sum(concept == "cat" for concept, _ in one.phrases) / 400
    assert 0.4 < share < 0.6
    assert set(one.templates) == set(range(24))
    assert abs(one.token.std() - 0.02) < 0.01


def test_without_phrases_no_concept_is_needed(encoder: OpenClipEncoder) -> None:
    from models.textual_inversion.oti import draws, optimised_tokens

    settings = OtiSettings(steps=3, phrase_weight=0)
    own = draws(KEYS[0], [], {}, encoder.token_width, settings)
    assert own.phrases == ()
    assert optimised_tokens(encoder.tower, images(encoder)[:1], [own], settings).shape == (1, 40)
    assert optimised_tokens(encoder.tower, images(encoder)[:0], [], settings).shape == (0, 40)


def test_known_words_are_recovered() -> None:
    """The image feature is that of sentences with a word: the nearest embedding is that word."""
    import torch

    from models.encoders.loading import load_encoder
    from models.textual_inversion.oti import draws, optimised_tokens
    from models.textual_inversion.templates import TEMPLATES, filled

    encoder = load_encoder(EncoderSpec(name=str(EMBEDDED / "clip"), device="cpu"))
    words = ("heart", "star", "purple", "striped", "circle")
    features = np.stack(
        [encoder.encode_texts([filled(t, word) for t in TEMPLATES]).mean(axis=0) for word in words]
    )
    settings = OtiSettings(steps=100, phrase_weight=0)
    own = [draws(word, [], {}, encoder.token_width, settings) for word in words]
    found = torch.from_numpy(optimised_tokens(encoder.tower, features, own, settings))
    table = torch.nn.functional.normalize(encoder.tower.embedding.weight, dim=-1)
    nearest = (torch.nn.functional.normalize(found, dim=-1) @ table.T).argmax(dim=-1).tolist()
    assert [[each] for each in nearest] == [encoder.tower.tokens.ids(word) for word in words]


def test_something_is_weighed() -> None:
    with pytest.raises(ValueError, match="one of them must not be"):
        OtiSettings(image_weight=0, phrase_weight=0)
