"""How the embedded text generator is trained: losses, steps, state.

Everything depends on (settings, step) only: batches are drawn from the step's own random stream,
and nothing in the model is random.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from embedded_world.recipes.muon import Muon
from embedded_world.recipes.text_batches import Batch, BatchMaker
from embedded_world.recipes.text_settings import Settings
from embedded_world.recipes.training import packed, unpacked
from embedded_world.scenes import NUM_CELLS


class TextLearner:
    """The text generator, its probes and both optimisers."""

    def __init__(
        self,
        settings: Settings,
        model: LlamaForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        glance: Callable[[LlamaForCausalLM, PreTrainedTokenizerFast], Mapping[str, float]],
    ) -> None:
        """Prepare step 0.

        Args:
            settings: Of the whole run.
            model: Trained in place.
            tokenizer: The model's own.
            glance: Shares of right answers by name, for progress lines.
        """
        self.settings = settings
        self.model = model
        self.tokenizer = tokenizer
        self._glance = glance
        # Thrown away after training.
        self.probes = nn.ModuleDict(
            {
                "change": nn.Linear(model.config.hidden_size, 1),
                "aim": nn.Linear(model.config.hidden_size, NUM_CELLS),
                "spread": nn.Linear(model.config.hidden_size, NUM_CELLS),
                "contrast": nn.Linear(model.config.hidden_size, 1),
                "target": nn.Linear(model.config.hidden_size, NUM_CELLS),
            }
        )
        for parameter in self.probes.parameters():
            nn.init.zeros_(parameter)
        named = list(model.named_parameters())
        matrices = [p for n, p in named if p.ndim == 2 and "embed" not in n]
        rest = [p for n, p in named if p.ndim < 2 or "embed" in n] + list(self.probes.parameters())
        self.muon = Muon(matrices)
        self.adam = torch.optim.AdamW(rest, lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.0)
        self.step = 0
        self._batches: Iterator[Batch] | None = None

    def losses(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and its parts: answer tokens alone, and each probe."""
        output = self.model(batch.ids, output_hidden_states=True, use_cache=False)
        weights = batch.weights[:, 1:]
        each = F.cross_entropy(
            output.logits[:, :-1].flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none"
        ).view_as(weights)
        s, hidden = self.settings, output.hidden_states
        late = self.step >= s.restart
        change_layer = s.late_change_layer if late else s.change_layer
        change = self._probe_loss("change", hidden[change_layer], batch.changes)
        loss = (each * weights).sum() / weights.sum() + s.change_weight * change
        parts = {"answer": each.detach()[weights >= 1].mean(), "change": change.detach()}
        if late:
            aim = self._probe_loss("aim", hidden[s.aim_layer], batch.aims)
            spread = self._probe_loss("spread", hidden[s.spread_layer], batch.spread)
            loss = loss + s.aim_weight * (aim + spread)
            parts |= {"aim": aim.detach(), "spread": spread.detach()}
        if self.step >= s.third:
            contrast = self._probe_loss("contrast", hidden[s.contrast_layer], batch.contrast)
            target = self._probe_loss("target", hidden[s.target_layer], batch.target)
            loss = loss + s.contrast_weight * (contrast + 0.5 * target)
            asked = weights[batch.contrast.amax(1) >= 0] >= 1
            told = each.detach()[batch.contrast.amax(1) >= 0][asked]
            parts |= {"contrast": contrast.detach(), "target": target.detach()}
            parts |= {"difference": told.sum() / max(1, len(told))}
        return loss, parts

    def _probe_loss(self, name: str, hidden: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of a probe on normalised hidden states, where there are labels."""
        told = labels >= 0
        chosen = hidden[told]
        guess = self.probes[name](chosen * torch.rsqrt(chosen.pow(2).mean(-1, keepdim=True) + 1e-6))
        if labels.is_floating_point():
            total = F.binary_cross_entropy_with_logits(
                guess.squeeze(-1), labels[told], pos_weight=torch.tensor(4.0), reduction="sum"
            )
        else:
            total = F.cross_entropy(guess, labels[told], reduction="sum")
        return total / max(1, len(chosen))  # a batch may hold no label at all

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.settings.steps

    def advance(self) -> Mapping[str, float]:
        """Take one step on the next batch; the parts of the loss by name."""
        if self._batches is None:
            self._batches = BatchMaker(self.settings, self.tokenizer).from_step(self.step)
        return self.learn(next(self._batches))

    def learn(self, batch: Batch) -> Mapping[str, float]:
        """Update the weights; the parts of the loss by name."""
        rate = self.settings.rate(self.step)
        loss, parts = self.losses(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        self.muon.step(rate, self.settings.weight_decay)
        self.model.zero_grad(set_to_none=True)
        self.probes.zero_grad(set_to_none=True)
        self.step += 1
        return {name: part.item() for name, part in parts.items()}

    def look(self) -> str:
        """Shares of right answers on a few held-out samples."""
        shares = self._glance(self.model, self.tokenizer)
        return " ".join(f"{name} {share:.3f}" for name, share in shares.items())

    def save(self) -> bytes:
        """Weights, state of the optimisers, step."""
        return packed(
            step=self.step,
            model=self.model.state_dict(),
            probes=self.probes.state_dict(),
            muon=self.muon.buffers,
            adam=self.adam.state_dict(),
        )

    def load(self, data: bytes) -> None:
        """Continue from saved data."""
        state = unpacked(data)
        self.model.load_state_dict(state["model"])
        self.probes.load_state_dict(state["probes"])
        self.muon.buffers = state["muon"]
        self.adam.load_state_dict(state["adam"])
        self.step, self._batches = state["step"], None
