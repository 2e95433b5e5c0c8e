"""How the embedded text generator is trained: losses, steps, checkpoints.

Everything depends on (seed, step) only: batches are drawn anew from the step's own random stream,
nothing in the model is random, so a run resumed from a checkpoint equals an undisturbed one.
"""

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from embedded_world.recipes.muon import Muon
from embedded_world.recipes.text_batches import Batch
from embedded_world.recipes.text_settings import Settings
from embedded_world.scenes import NUM_CELLS


class Trainer:
    """One training run with its state; `step()` is one optimiser step."""

    def __init__(
        self, settings: Settings, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        self.settings = settings
        self.model = model
        self.tokenizer = tokenizer
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
        self.done = 0
        self.cpu_seconds = 0.0

    def losses(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and its parts: answer tokens alone, and each probe."""
        output = self.model(batch.ids, output_hidden_states=True, use_cache=False)
        weights = batch.weights[:, 1:]
        each = F.cross_entropy(
            output.logits[:, :-1].flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none"
        ).view_as(weights)
        s, hidden = self.settings, output.hidden_states
        late = self.done >= s.restart
        change_layer = s.late_change_layer if late else s.change_layer
        change = self._probe_loss("change", hidden[change_layer], batch.changes)
        loss = (each * weights).sum() / weights.sum() + s.change_weight * change
        parts = {"answer": each.detach()[weights >= 1].mean(), "change": change.detach()}
        if late:
            aim = self._probe_loss("aim", hidden[s.aim_layer], batch.aims)
            spread = self._probe_loss("spread", hidden[s.spread_layer], batch.spread)
            loss = loss + s.aim_weight * (aim + spread)
            parts |= {"aim": aim.detach(), "spread": spread.detach()}
        if self.done >= s.third:
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

    def step(self, batch: Batch) -> dict[str, float]:
        """Update the weights; returns the parts of the loss by name."""
        began = time.process_time()
        rate = self.settings.rate(self.done)
        loss, parts = self.losses(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        self.muon.step(rate, self.settings.weight_decay)
        self.model.zero_grad(set_to_none=True)
        self.probes.zero_grad(set_to_none=True)
        self.done += 1
        self.cpu_seconds += time.process_time() - began
        return {name: part.item() for name, part in parts.items()}

    # A checkpoint is one safetensors file: it appears whole or not at all.

    def save(self, path: Path) -> None:
        """Write weights, optimiser state and progress to one file."""
        weights = {k: v for k, v in self.model.state_dict().items() if k != "lm_head.weight"}
        tensors = {f"model.{k}": v for k, v in weights.items()}
        tensors |= {f"probes.{k}": v for k, v in self.probes.state_dict().items()}
        tensors |= {f"muon.{'x'.join(map(str, k))}": v for k, v in self.muon.buffers.items()}
        for i, state in self.adam.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{k}": v for k, v in state.items()}
        progress = {"done": self.done, "cpu_seconds": self.cpu_seconds}
        about = {"settings": json.dumps(asdict(self.settings)), "progress": json.dumps(progress)}
        tensors = {k: v.detach().contiguous() for k, v in tensors.items()}
        temporary = path.with_suffix(".tmp")
        save_file(tensors, temporary, metadata=about)
        os.replace(temporary, path)

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint of the same settings.

        Raises:
            ValueError: The checkpoint was written under other settings.
        """
        with safe_open(path, "pt") as file:
            about = file.metadata()
        theirs, ours = json.loads(about["settings"]), asdict(self.settings)
        if theirs != ours:
            other = {k: (theirs.get(k), v) for k, v in ours.items() if theirs.get(k) != v}
            raise ValueError(
                f"{path} has other settings (theirs, ours): {other}; use another --work"
            )
        progress = json.loads(about["progress"])
        tensors = load_file(path)
        self.model.load_state_dict(_under("model.", tensors), strict=False)
        self.probes.load_state_dict(_under("probes.", tensors))
        for shape in self.muon.buffers:
            self.muon.buffers[shape].copy_(tensors[f"muon.{'x'.join(map(str, shape))}"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("adam.", tensors).items():
            index, field = name.split(".", 1)
            state.setdefault(int(index), {})[field] = tensor
        self.adam.load_state_dict({**self.adam.state_dict(), "state": state})
        self.done, self.cpu_seconds = int(progress["done"]), float(progress["cpu_seconds"])


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
