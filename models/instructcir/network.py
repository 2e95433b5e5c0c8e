"""The reformulation network of InstructCIR: an image read in the light of a text.

    S, e_T = text tower(T)                          token sequence, and its projected end
    v      = image tower(I) with X + CrossAttn(LNx(X), S) in every block
    z      = g([v ; e_T])                           g: Linear(2d -> 4d) GELU Linear(4d -> d)

A query's z looks for its target's z, which is the same function of the target image with the
null text. Shape legend: B batch, L text tokens, T text width, W image width, d joint space.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from models.instructcir.blocks import CrossAttendedBlock, CrossAttention, KeysValues
from models.instructcir.parts import NetworkParts, load_backbone
from models.instructcir.settings import NetworkSettings
from models.instructcir.text_sequence import TextIds, TextSequence
from models.spelling import agreed
from models.training.trainable import ParameterGroup, parameter_groups

if TYPE_CHECKING:
    from models.encoders.spec import EncoderSpec

_UNDECAYED: Final = frozenset(
    ("positional", "positional_embedding", "null_sequence", "null_embedding")
)
"""Parameters with more than one axis that weight decay leaves alone all the same."""


class QueryOutput(NamedTuple):
    """Embeddings of images with texts; nothing is normalised.

    Attributes:
        z: (B, d) the query embedding.
        text: (B, d) e_T, the pure text embedding.
        image: (B, d) v, the image embedding under the text, before the predictor.
    """

    z: torch.Tensor
    text: torch.Tensor
    image: torch.Tensor


class TextContext(NamedTuple):
    """Texts as the image tower attends to them; one text for all rows where B is 1.

    Attributes:
        sequence: (B or 1, L, T) token sequence.
        mask: (B, 1, 1, L), true where a token is seen; None where all are.
        pooled: (B or 1, d) e_T.
        keys_values: Those of each block, where they are known.
    """

    sequence: torch.Tensor
    mask: torch.Tensor | None
    pooled: torch.Tensor
    keys_values: tuple[KeysValues | None, ...] | None = None


class ReformulationNetwork(nn.Module):
    """Image tower with cross-attention, text tower and predictor."""

    def __init__(self, backbone: nn.Module, parts: NetworkParts, settings: NetworkSettings) -> None:
        """Build on a backbone, whose modules are taken over and changed.

        Args:
            backbone: An open_clip model that `parts.check_backbone` accepts.
            parts: Its tokenizer, preprocessing and identity.
            settings: Of the network.

        Raises:
            ValueError: More blocks should be cross-attended than there are.
        """
        super().__init__()
        self.parts = parts
        self.settings = settings
        self.checkpointing = False
        self.text = TextSequence(backbone, parts.tokens.end)
        self.image = backbone.visual
        self.image.patch_dropout = nn.Identity()
        self.image.transformer.resblocks = _cross_attended(
            self.image.transformer.resblocks, self.text.width, settings
        )
        self.predictor = _predictor(self.dim, settings) if settings.predictor else None
        self._null_ids = _null_ids(parts, settings)
        self.null_sequence: nn.Parameter | None = None
        self.null_embedding: nn.Parameter | None = None
        if settings.null_text == "learned":
            self.null_sequence = nn.Parameter(torch.zeros(2, self.text.width))
            self.null_embedding = nn.Parameter(torch.zeros(self.dim))
        self.choose_trained()

    @property
    def dim(self) -> int:
        """Width d of the joint space."""
        return int(self.image.output_dim)

    @property
    def blocks(self) -> nn.ModuleList:
        """The image tower's blocks, each a `CrossAttendedBlock`."""
        return self.image.transformer.resblocks

    @property
    def text_ids(self) -> TextIds:
        """From texts to the ids that `query` reads: cropped as far as the mask allows."""
        return TextIds(self.parts.tokens, whole_context=self.settings.text_mask == "full")

    def forward(self, pixels: torch.Tensor, text_ids: torch.Tensor) -> QueryOutput:
        """The query path; see `query`."""
        return self.query(pixels, text_ids)

    def query(self, pixels: torch.Tensor, text_ids: torch.Tensor) -> QueryOutput:
        """Embed reference images under modification texts.

        Args:
            pixels: (B, 3, H, W) normalised.
            text_ids: (B, L) as `text_ids` makes them; longer padding is allowed.
        """
        return self.attend(pixels, self.read(text_ids))

    def target(self, pixels: torch.Tensor, null: TextContext | None = None) -> torch.Tensor:
        """Embed images without a text: the same function with the null text.

        Args:
            pixels: (B, 3, H, W) normalised.
            null: From `constant_null_text`, where weights do not change between calls.

        Returns:
            (B, d), not normalised.
        """
        output = self.attend(pixels, self.null_text() if null is None else null)
        predicted = self.predictor is not None and self.settings.target_predictor
        return output.z if predicted else output.image

    def attend(self, pixels: torch.Tensor, text: TextContext) -> QueryOutput:
        """Embed images (B, 3, H, W) under texts that were read before."""
        x = self.image._embeds(pixels)
        known = text.keys_values or (None,) * len(self.blocks)
        for block, keys_values in zip(self.blocks, known, strict=True):
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(
                    block,
                    x,
                    text.sequence,
                    text.mask,
                    keys_values,
                    use_reentrant=False,
                    preserve_rng_state=False,
                )
            else:
                x = block(x, text.sequence, text.mask, keys_values)
        # The head is small and its output meets a temperature of 0.01: never in half precision.
        with torch.autocast(pixels.device.type, enabled=False):
            pooled, _ = self.image._pool(x)
            proj = self.image.proj
            v = pooled if proj is None else pooled.to(proj.dtype) @ proj
            pure = text.pooled.to(v.dtype).expand(len(v), -1)
            return QueryOutput(self._predicted(v, pure), pure, v)

    def read(self, text_ids: torch.Tensor) -> TextContext:
        """Read texts (B, L) with the text tower."""
        full = self.settings.text_mask == "full"
        if full and text_ids.shape[1] != self.parts.tokens.context_length:
            raise ValueError(
                f"text_mask='full' looks at all {self.parts.tokens.context_length} positions, "
                f"these ids have {text_ids.shape[1]}; make them with `network.text_ids`"
            )
        if not full and text_ids.device.type == "cpu":
            # Elsewhere the length would be waited for; `text_ids` has cropped already.
            text_ids = text_ids[:, : int(self.text.ends(text_ids).max()) + 1]
        sequence, ends, pooled = self.text(text_ids)
        if full:
            return TextContext(sequence, None, pooled)
        places = torch.arange(text_ids.shape[1], device=ends.device)
        return TextContext(sequence, (places <= ends[:, None])[:, None, None], pooled)

    def null_text(self) -> TextContext:
        """The null text, one row for every image; with gradients where it has any."""
        if self.null_sequence is not None and self.null_embedding is not None:
            return TextContext(self.null_sequence[None], None, self.null_embedding[None])
        ids = torch.tensor([self._null_ids], device=self.text.positional.device)
        sequence, _, pooled = self.text(ids)
        return TextContext(sequence, None, pooled)

    def constant_null_text(self) -> TextContext:
        """The null text with every block's keys and values, for weights that stay as they are.

        A gallery then costs a plain vision transformer plus an attention on two keys per block.
        """
        with torch.no_grad():
            null = self.null_text()
            known = tuple(
                None if block.cross is None else block.cross.keys_values(null.sequence)
                for block in self.blocks
            )
        return null._replace(keys_values=known)

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Keep only the blocks' inputs for the backward pass, of both towers."""
        self.checkpointing = enabled
        self.text.checkpointing = enabled

    def new_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that the backbone does not have."""
        for name, parameter in self.named_parameters():
            if ".cross." in name or name.startswith(("predictor.", "null_")):
                yield name, parameter

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """Trained parameters; gates, position embeddings and the null text never decay."""
        new = {name for name, _ in self.new_parameters()}
        return parameter_groups(self, new.__contains__, _UNDECAYED)

    def _predicted(self, v: torch.Tensor, pure: torch.Tensor) -> torch.Tensor:
        """g([v ; e_T]), (B, d)."""
        if self.settings.sums or self.settings.predictor_inputs == "normalised":
            v, pure = functional.normalize(v, dim=-1), functional.normalize(pure, dim=-1)
        if self.predictor is None:
            return v + pure if self.settings.sums else v
        return self.predictor(torch.cat([v, pure], dim=-1))

    def choose_trained(self) -> None:
        """Freeze parameters that are constant by nature or setting, or that no gradient reaches."""
        self.requires_grad_(True)
        vision = self.parts.architecture.get("vision_cfg", {})
        if vision.get("pos_embed_type", "learnable") != "learnable":
            self.image.positional_embedding.requires_grad_(False)
        if self.settings.text_tower == "frozen":
            self.text.requires_grad_(False)
        reads_pure = self.settings.predictor or self.settings.sums
        if not reads_pure and self.text.projection is not None:
            # Nothing trained reads e_T, and DDP waits for every gradient.
            self.text.projection.requires_grad_(False)


def build_network(
    spec: EncoderSpec, settings: NetworkSettings | None = None, seed: int = 0
) -> ReformulationNetwork:
    """A network on a pre-trained backbone, in fp32 on the CPU, ready to be trained.

    Args:
        spec: The backbone; its precision and device are not looked at.
        settings: Of the network; the paper's where left out.
        seed: Of the new layers' initial weights.

    Raises:
        EncoderNotFound: No such backbone, tag or weights.
        BackboneUnsupported: It cannot be given cross-attention; the message says why.
    """
    with torch.random.fork_rng(devices=[]):
        backbone, parts = load_backbone(spec)
        torch.manual_seed(seed)
        network = ReformulationNetwork(backbone, parts, settings or NetworkSettings())
    _start_null_text(network)
    return network


def _null_ids(parts: NetworkParts, settings: NetworkSettings) -> list[int]:
    """Token ids of the empty string, as `ReformulationNetwork.text_ids` pads it."""
    ids = list(parts.tokens.row("").ids)
    if settings.text_mask == "full":
        ids += [0] * (parts.tokens.context_length - len(ids))
    return ids


def _start_null_text(network: ReformulationNetwork) -> None:
    """A learned null text starts as the empty string's."""
    if network.null_sequence is None or network.null_embedding is None:
        return
    with torch.no_grad():
        sequence, _, pooled = network.text(TextIds(network.parts.tokens)([""]))
        network.null_sequence.copy_(sequence[0])
        network.null_embedding.copy_(pooled[0])


def _cross_attended(
    blocks: nn.ModuleList, text_width: int, settings: NetworkSettings
) -> nn.ModuleList:
    count = (
        len(blocks) if settings.cross_attended_blocks is None else settings.cross_attended_blocks
    )
    if count > len(blocks):
        raise ValueError(
            f"cross_attended_blocks is {count}, but the image tower has {len(blocks)} "
            f"{agreed(len(blocks), 'block')}; None means all of them"
        )
    return nn.ModuleList(
        CrossAttendedBlock(block, _cross(block, text_width, settings) if lasts <= count else None)
        for block, lasts in zip(blocks, range(len(blocks), 0, -1), strict=True)
    )


def _cross(block: nn.Module, text_width: int, settings: NetworkSettings) -> CrossAttention:
    width = int(block.ln_1.normalized_shape[0])
    return CrossAttention(width, text_width, int(block.attn.num_heads), settings.gate)


def _predictor(dim: int, settings: NetworkSettings) -> nn.Module:
    """g of (B, 2d) -> (B, d)."""
    hidden = settings.predictor_ratio * dim
    return nn.Sequential(nn.Linear(2 * dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
