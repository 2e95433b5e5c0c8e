"""The PALAVRA-style set encoder: its symmetries, and its losses against naive formulas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.textual_inversion.learner_settings import PalavraSettings
from models.textual_inversion.refining import RefiningSettings

if TYPE_CHECKING:
    import torch

    from models.encoders.open_clip import OpenClipEncoder
    from models.textual_inversion.palavra import PalavraLearner

NAMES = ("cat", "red hat", "old cup")


def learner(encoder: OpenClipEncoder, **settings) -> PalavraLearner:
    from models.textual_inversion.palavra import PalavraLearner

    chosen = PalavraSettings(**{"hidden": 12, "dropout": 0.0, **settings})
    return PalavraLearner(encoder.tower, encoder.dim, NAMES, chosen, seed=1)


def sets(encoder: OpenClipEncoder, rows: int = 3, size: int = 4) -> torch.Tensor:
    import torch

    torch.manual_seed(4)
    return torch.randn(rows, size, encoder.dim) * 3


def test_the_set_encoder_is_the_naive_formula(encoder: OpenClipEncoder) -> None:
    import torch

    own, features = learner(encoder).network.encoder, sets(encoder, rows=1)
    w = {name: value.double() for name, value in own.state_dict().items()}
    members = [row.double() / row.double().norm() for row in features[0]]

    def elu(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, torch.exp(x) - 1)

    for layer in range(3):
        mean = sum(members) / len(members)
        g, b = w[f"layers.{layer}.own.weight"], w[f"layers.{layer}.own.bias"]
        shift = w[f"layers.{layer}.mean.weight"] @ mean
        members = [elu(g @ each + b - shift) for each in members]
    x = sum(members) / len(members)
    x = elu(w["head.1.weight"] @ x + w["head.1.bias"])
    x = w["head.4.weight"] @ x + w["head.4.bias"]
    torch.testing.assert_close(own(features)[0].double(), x, rtol=1e-4, atol=1e-5)


def test_the_order_of_a_set_does_not_matter_and_one_member_will_do(
    encoder: OpenClipEncoder,
) -> None:
    import torch

    own, features = learner(encoder).network.encoder, sets(encoder)
    torch.testing.assert_close(own(features), own(features[:, [2, 0, 3, 1]]))
    torch.testing.assert_close(own(features * 7), own(features))  # lengths do not count
    alone = own(features[:, :1])
    torch.testing.assert_close(alone, own(features[:, [0, 0, 0]]))
    assert (alone - own(features)).abs().max() > 1e-4


def test_the_loss_of_tokens_is_the_naive_formula(encoder: OpenClipEncoder) -> None:
    import torch

    from models.textual_inversion.templates import TEMPLATES, filled
    from tests.models.textual_inversion.test_losses import naive_simclr

    own = learner(encoder)
    tokens = torch.randn(3, encoder.token_width)
    sentences = [TEMPLATES[i] for i in (0, 22, 5)]
    named = encoder.encode_texts(
        [filled(template, name) for template, name in zip(sentences, NAMES, strict=True)]
    )
    spliced = encoder.encode_spliced(sentences, tokens.numpy())
    table = encoder.model.token_embedding.weight.detach().numpy()
    total = 0.0
    for token, name in zip(tokens.numpy(), NAMES, strict=True):
        piece = table[encoder.tower.tokens.ids(name)[0]]
        a, b = token / np.linalg.norm(token), piece / np.linalg.norm(piece)
        total += float(((a - b) ** 2).sum()) / 3  # dt times the mean over B and dt
    expected = total + naive_simclr(torch.from_numpy(named), torch.from_numpy(spliced), 0.25)
    found = own.of_tokens(tokens, NAMES, sentences).item()
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_token_that_is_its_own_name_costs_less_than_anothers(encoder: OpenClipEncoder) -> None:
    from models.textual_inversion.templates import TEMPLATES

    own = learner(encoder)
    names = ("cat", "hat", "cup")
    table = encoder.tower.embedding.weight.detach()
    true = table[[encoder.tower.tokens.ids(name)[0] for name in names]]
    sentences = [TEMPLATES[0]] * 3
    right = own.of_tokens(true, names, sentences)
    assert right < own.of_tokens(true.roll(1, 0), names, sentences) - 0.1


def test_the_alignment_learns_from_pairs_alone(encoder: OpenClipEncoder) -> None:
    import torch

    own, images = learner(encoder), sets(encoder)
    texts = torch.randn(3, 6, encoder.dim)
    batch = {
        "images": images,
        "captions": torch.randn(3, 4, encoder.dim),
        "texts": texts,
        "concepts": torch.arange(3),
    }
    torch.manual_seed(0)
    own.loss(batch).backward()
    shift = own.network.alignment.shift.weight.grad
    torch.manual_seed(0)
    own.zero_grad()
    (captions, drawn) = (batch["captions"], images)
    from models.textual_inversion.palavra import drawn_alike

    drawn, captions = drawn_alike(5, images, captions)
    # With a zero shift A is the identity.
    n = torch.nn.functional.normalize
    aligned = captions @ own.network.alignment.shift.weight.T + captions
    ((n(aligned, dim=-1) - n(drawn, dim=-1)) ** 2).mean().backward()
    torch.testing.assert_close(shift, own.network.alignment.shift.weight.grad)


def test_members_are_drawn_alike_from_each_row() -> None:
    import torch

    from models.textual_inversion.palavra import drawn_alike

    one = torch.arange(12.0).view(2, 6, 1)
    torch.manual_seed(0)
    first, second = drawn_alike(50, one, one * 10)
    assert torch.equal(first * 10, second)
    assert set(first[0].flatten().tolist()) == set(range(6))
    assert set(first[1].flatten().tolist()) == set(range(6, 12))


def test_refinement_moves_tokens_towards_their_images(encoder: OpenClipEncoder) -> None:
    import torch

    from models.protocols import SplicedText
    from models.textual_inversion.palavra import refined

    own = learner(encoder).network.eval()
    images = torch.from_numpy(encoder.encode_texts(["a photo of a cat", "an old cup"]))
    start = torch.randn(2, encoder.token_width) * 0.02

    def cosines(tokens: torch.Tensor) -> torch.Tensor:
        sentences = encoder.encode_spliced([SplicedText("")] * 2, tokens.numpy())
        return torch.nn.functional.cosine_similarity(torch.from_numpy(sentences), images, dim=-1)

    settings = RefiningSettings()
    after = refined(own, encoder.tower, start, images, settings)
    assert (cosines(after) > cosines(start)).all()
    alone = refined(own, encoder.tower, start[1:], images[1:], settings)
    torch.testing.assert_close(alone[0], after[1], rtol=0, atol=1e-4)
    unmoved = refined(own, encoder.tower, start, images, RefiningSettings(steps=0))
    assert torch.equal(unmoved, start)


def test_a_name_that_the_tokenizer_drops_is_read_as_the_end(encoder: OpenClipEncoder) -> None:
    """A vocabulary of others may hold one; training goes on."""
    from models.textual_inversion.templates import TEMPLATES

    own, tower = learner(encoder), encoder.tower
    names = ("<end_of_text>", "cat")
    assert tower.tokens.ids(names[0]) == []
    true = tower.embedding.weight.detach()[[tower.tokens.end, tower.tokens.ids("cat")[0]]]
    right = own.of_tokens(true, names, [TEMPLATES[0]] * 2)
    assert right < own.of_tokens(true.roll(1, 0), names, [TEMPLATES[0]] * 2)
