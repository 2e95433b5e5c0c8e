"""LoRA fine-tuning of the language model that writes modification texts (InstructCIR).

Low-rank adaptation (Hu et al., ICLR 2022): a frozen projection W x gains (alpha / r) B A x with
A (r, in), B (out, r) trained, B zero at first. The loss is the cross-entropy of the answer's
tokens and its end, averaged over all answer tokens of a batch, however it is cut for memory:

    L = - 1/N sum over answers, over their tokens t, of log p(t | prompt, answer before t)

The paper names LoRA and ten epochs; rank, rates and batch are open there and follow common
practice. Order, dropout and initial weights follow from (seed, epoch) and (seed, step), and the
learning rate from the step: a run that is stopped and resumed ends with the weights of one that
was not.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from models.devices import pick_device
from models.generators.prompt_tokens import prompt_texts, token_ids, uses_chat
from models.instructcir.rewriter_settings import BaseLlm, Example, TuningConfig
from models.loaded_adapter import load_adapter
from models.loaded_weights import require_vocabulary
from models.random_streams import random_stream
from models.spelling import agreed
from models.training.schedules import rate_factor

_NO_LABEL: Final = -100


@dataclass(frozen=True, slots=True)
class TrainingTokens:
    """Token ids of a prompt and, after `answer_at`, of its answer with the end token."""

    ids: tuple[int, ...]
    answer_at: int


def tokenise_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Example], is_chat: bool, context: int | None
) -> list[TrainingTokens]:
    """Token ids of every pair; a prompt has exactly the ids that it is answered with.

    Raises:
        ValueError: A pair does not fit the model's context (nothing is ever cut), an answer is
            empty, or its first letters melt into one token with the prompt's end.
    """
    prompts = prompt_texts(tokenizer, [pair.prompt for pair in pairs], is_chat)
    heads = token_ids(tokenizer, prompts, is_chat)
    wholes = token_ids(
        tokenizer,
        [_joined(text, pair.answer) for text, pair in zip(prompts, pairs, strict=True)],
        is_chat,
    )
    rows = []
    for pair, head, whole in zip(pairs, heads, wholes, strict=True):
        if whole[: len(head)] != head or len(whole) == len(head):
            raise ValueError(
                f"the answer {pair.answer!r} does not begin with a token of its own after the "
                f"prompt ...{pair.prompt[-40:]!r}; end the prompt with a colon or a line end, and "
                "give an answer with words"
            )
        rows.append(TrainingTokens((*whole, tokenizer.eos_token_id), len(head)))
    if context is not None:
        _refuse_overlong(rows, pairs, context)
    return rows


def _joined(prompt: str, answer: str) -> str:
    """The prompt and its answer, one blank apart where nothing else parts them."""
    return prompt + answer if prompt[-1:].isspace() else f"{prompt} {answer}"


def _refuse_overlong(
    rows: Sequence[TrainingTokens], pairs: Sequence[Example], context: int
) -> None:
    overlong = [i for i, row in enumerate(rows) if len(row.ids) > context]
    if overlong:
        first = overlong[0]
        raise ValueError(
            f"{len(overlong)} of {len(pairs)} {agreed(len(pairs), 'pair')} "
            f"{agreed(len(overlong), 'does', 'do')} not fit the model's context of {context} "
            f"tokens; the first has {len(rows[first].ids)}: {pairs[first].prompt[:100]!r}... "
            "Shorten the captions, or take a model with a longer context"
        )


class RewriterTuning:
    """A tuning run: make it, `run` it, `save` and `load` it in between as you like."""

    def __init__(self, config: TuningConfig, base: BaseLlm, pairs: Sequence[Example]) -> None:
        """Load the base model and prepare a run from step 0.

        Args:
            config: Hyper-parameters.
            base: The model to tune.
            pairs: Prompts and their answers.

        Raises:
            ValueError: There are no pairs, or some cannot be put to the model as they are.
        """
        if not pairs:
            raise ValueError("there is no pair of a prompt and an answer to train on")
        self.config = config
        self._device = pick_device(base.device)
        tokenizer = base.load_tokenizer()
        model = base.load_weights()
        rows = model.get_input_embeddings().num_embeddings
        require_vocabulary(base.model, tokenizer, rows)
        context = getattr(model.config, "max_position_embeddings", None)
        self._rows = tokenise_pairs(tokenizer, pairs, uses_chat(tokenizer, base.chat), context)
        self.model: PeftModel = _with_adapters(model, config, self._device)
        self._optimizer = torch.optim.AdamW(self._trained(), lr=0.0, weight_decay=0.0)
        self.steps = config.steps_on(len(pairs))
        self.losses: list[float] = []

    @property
    def step(self) -> int:
        """Steps taken."""
        return len(self.losses)

    @property
    def done(self) -> bool:
        """Whether all steps were taken."""
        return self.step >= self.steps

    def run(self, until: int | None = None) -> None:
        """Train up to step `until`, or to the end."""
        until = self.steps if until is None else min(until, self.steps)
        self.model.train()
        while self.step < until:
            loss = self._take_step()
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"the loss is {loss} at step {self.step}; lower the learning rate "
                    f"({self.config.learning_rate})"
                )
            self.losses.append(loss)

    def save(self) -> bytes:
        """The state to resume from, readable with `weights_only=True`."""
        buffer = io.BytesIO()
        state = {
            "losses": self.losses,
            "adapter": get_peft_model_state_dict(self.model, save_embedding_layers=False),
            "optimizer": self._optimizer.state_dict(),
        }
        torch.save(state, buffer)
        return buffer.getvalue()

    def load(self, data: bytes) -> None:
        """Resume from a state of `save`; the caller keeps states of different runs apart."""
        state: dict[str, Any] = torch.load(
            io.BytesIO(data), map_location=self._device, weights_only=True
        )
        set_peft_model_state_dict(self.model, state["adapter"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.losses = list(state["losses"])

    def adapter_files(self, base_name: str) -> dict[str, bytes]:
        """The adapter as it is now in peft's own format, file name -> contents.

        Args:
            base_name: Name of the base in the adapter: a hub id or a made-up name, not a path.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.model.save_pretrained(folder, save_embedding_layers=False)
            names = ("adapter_model.safetensors", "adapter_config.json")
            files = {name: Path(folder, name).read_bytes() for name in names}
        config = json.loads(files["adapter_config.json"])
        config["base_model_name_or_path"] = base_name
        config["target_modules"] = sorted(config["target_modules"])  # peft keeps them in a set
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        return files | {"adapter_config.json": text.encode()}

    def _trained(self) -> list[torch.nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def _take_step(self) -> float:
        chosen = [self._rows[i] for i in self._members(self.step)]
        total = sum(len(row.ids) - row.answer_at for row in chosen)
        loss = 0.0
        with random_stream(self.config.seed, self.step + 1, self._device):
            members = iter(chosen)
            while part := list(itertools.islice(members, self.config.micro_batch)):
                share = answer_loss(self.model, part, self._device) / total
                share.backward()
                loss += float(share.detach())
        torch.nn.utils.clip_grad_norm_(self._trained(), self.config.clip)
        factor = rate_factor(self.step, self.steps, self.config.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.learning_rate * factor
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss

    def _members(self, step: int) -> list[int]:
        """Pairs of a step: each epoch a new order; its last batch may be smaller."""
        epoch, place = divmod(step, self.steps // self.config.epochs)
        order = np.random.default_rng((self.config.seed, epoch)).permutation(len(self._rows))
        size = self.config.batch_size
        return [int(i) for i in order[place * size : (place + 1) * size]]


def _with_adapters(model: torch.nn.Module, config: TuningConfig, device: torch.device) -> PeftModel:
    """The model on its device, frozen, with fresh adapters."""
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.targets),
        task_type="CAUSAL_LM",
    )
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
        model.config.use_cache = False
    with random_stream(config.seed, 0, torch.device("cpu")):
        return get_peft_model(model, lora).to(device)


def answer_loss(
    model: torch.nn.Module, rows: Sequence[TrainingTokens], device: torch.device
) -> Tensor:
    """Sum of the cross-entropies (nats) of all answer tokens of some rows, a scalar."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, _NO_LABEL)
    for line, row in enumerate(rows):  # padded on the right: positions count from the first token
        ids[line, : len(row.ids)] = torch.tensor(row.ids)
        mask[line, : len(row.ids)] = 1
        labels[line, row.answer_at : len(row.ids)] = torch.tensor(row.ids[row.answer_at :])
    logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, :-1]
    wanted = labels[:, 1:].to(device)
    answered = wanted != _NO_LABEL
    return functional.cross_entropy(logits[answered].float(), wanted[answered], reduction="sum")


def merge_adapter(base: BaseLlm, adapter: str | Path, folder: str | Path) -> None:
    """Write the base model with an adapter merged into it, for servers that know no adapters."""
    merged = load_adapter(base.load_weights(), str(adapter)).merge_and_unload()
    merged.save_pretrained(folder)
    base.load_tokenizer().save_pretrained(folder)
