"""TransAgg's head against PyTorch's own transformer, and cases worked by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from models.composed.transagg_settings import TransAggSettings

if TYPE_CHECKING:
    import torch

    from models.composed.clip_towers import TextTokens
    from models.composed.transagg_head import TransAggHead

DIM, ROWS, LENGTH, PATCHES = 24, 3, 7, 5


@pytest.fixture
def unfused_layers() -> Iterator[None]:
    import torch

    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


def head(seed: int = 0, **settings: Any) -> TransAggHead:
    import torch

    from models.composed.transagg_head import TransAggHead

    torch.manual_seed(seed)
    made = TransAggHead(DIM, TransAggSettings(feedforward=32, **settings))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made


def tokens() -> tuple[TextTokens, torch.Tensor, torch.Tensor]:
    """Text tokens of 7, 4 and 5 places, the padding behind them, and image tokens."""
    import torch

    from models.composed.clip_towers import TextTokens

    chance = torch.Generator().manual_seed(1)
    text = torch.randn(ROWS, LENGTH, DIM, generator=chance)
    ends = torch.tensor([6, 3, 4])
    padding = torch.arange(LENGTH) > ends[:, None]
    image = torch.randn(ROWS, PATCHES, DIM, generator=chance)
    return TextTokens(text, ends, text[torch.arange(ROWS), ends]), padding, image


def as_released(
    made: TransAggHead, text: TextTokens, padding: torch.Tensor, image: torch.Tensor
) -> torch.Tensor:
    """PyTorch's own layers on a mask of numbers, which joining two kinds of masks makes."""
    import torch

    joined = torch.cat([text.tokens, made.sep_token.expand(ROWS, 1, -1), image], dim=1)
    mask = torch.cat([padding, torch.zeros(ROWS, 1 + PATCHES)], dim=1)
    assert mask.dtype == torch.float32
    return made.fusion(joined, src_key_padding_mask=mask)


def own_fusion(
    made: TransAggHead, text: TextTokens, padding: torch.Tensor, image: torch.Tensor
) -> torch.Tensor:
    import torch

    joined = torch.cat([text.tokens, made.sep_token.expand(ROWS, 1, -1), image], dim=1)
    return made.fused(joined, made.bias(padding, joined.shape[1]))


def test_eval_as_torch_is_what_the_released_line_computes() -> None:
    """PyTorch adds one while gradients are on, and masks where its fused layers run."""
    import torch

    made = head(mask="eval_as_torch", dropout=0.0)
    for training in (True, False):
        made.train(training)
        torch.testing.assert_close(
            own_fusion(made, *tokens()), as_released(made, *tokens()), atol=1e-5, rtol=1e-5
        )
    added = own_fusion(made, *tokens())
    with torch.no_grad():
        masked = own_fusion(made, *tokens())
        torch.testing.assert_close(masked, as_released(made, *tokens()), atol=1e-5, rtol=1e-5)
    assert (masked - added).abs().max() > 1e-3


@pytest.mark.usefixtures("unfused_layers")
def test_plus_one_in_evaluation_is_the_released_line_unfused() -> None:
    import torch

    made = head(mask="train_plus_one").eval()
    with torch.no_grad():
        torch.testing.assert_close(
            own_fusion(made, *tokens()), as_released(made, *tokens()), atol=1e-5, rtol=1e-5
        )


def test_masked_is_a_mask_of_truth_values_in_training_and_evaluation() -> None:
    import torch

    made = head(mask="masked", dropout=0.0)
    text, padding, image = tokens()
    joined = torch.cat([text.tokens, made.sep_token.expand(ROWS, 1, -1), image], dim=1)
    mask = torch.nn.functional.pad(padding, (0, 1 + PATCHES))
    expected = made.fusion(joined, src_key_padding_mask=mask)
    for training in (True, False):
        found = own_fusion(made.train(training), text, padding, image)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_dropout_is_on_in_training_alone() -> None:
    import torch

    made = head(mask="masked", dropout=0.5)
    with torch.no_grad():
        assert not torch.equal(made(*tokens()), made(*tokens()))
        made.eval()
        assert torch.equal(made(*tokens()), made(*tokens()))


def test_the_combination_by_hand() -> None:
    """Free weights times text, joint vector and image, read at end-of-text and class token."""
    import torch

    made = head(mask="masked").eval()
    text, padding, image = tokens()
    with torch.no_grad():
        fused = own_fusion(made, text, padding, image)
        for row, end in enumerate((6, 3, 4)):
            both = torch.cat([fused[row, LENGTH + 1], fused[row, end]])
            hidden = (made.combiner_layer.weight @ both + made.combiner_layer.bias).clamp(min=0)
            joint = made.output_layer.weight @ hidden + made.output_layer.bias
            w = made.weighted_layer.weight @ joint + made.weighted_layer.bias
            expected = w[0] * text.tokens[row, end] + w[1] * joint + w[2] * image[row, 0]
            found = made(text, padding, image)[row]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("place", "part"), [(0, "text"), (2, "image")])
def test_one_weight_leaves_one_part(place: int, part: str) -> None:
    import torch

    made = head().eval()
    text, padding, image = tokens()
    with torch.no_grad():
        made.weighted_layer.weight.zero_()
        made.weighted_layer.bias.copy_(torch.eye(3)[place])
        found = made(text, padding, image)
    assert torch.equal(found, {"text": text.pooled, "image": image[:, 0]}[part])
