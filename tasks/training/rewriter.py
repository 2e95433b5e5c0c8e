"""Tune the rewriter with LoRA, resumably, and publish the adapter once under its content key."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from prefect import task
from prefect.cache_policies import NO_CACHE

from models.checkpoints import checkpoint_folder, identity_or_load, model_name
from models.devices import require_device
from models.generators.adapter_card import CARD_FILE, AdapterCard, read_card, weights_hash
from models.generators.prompt_tokens import has_chat_template
from models.instructcir.rewriter_examples import ExampleSource
from models.instructcir.rewriter_settings import BaseLlm, Example, TuningConfig
from storage.locations.location import Location
from storage.tables.keys import content_key
from tasks.redacted import redacting
from tasks.training.publish import Job, publishing_once, train_and_publish

if TYPE_CHECKING:
    from models.instructcir.rewriter_tuning import RewriterTuning

PRODUCER = "cirflow/rewriter-adapter/1"
SAVE_EVERY = 25
"""Steps between two saved states."""

_LIBRARIES = ("torch", "transformers", "peft")
_PEFT_FILES = ("adapter_model.safetensors", "adapter_config.json")


class TuningData:
    """All pairs in their order, on their way into the task: Prefect does not look inside."""

    def __init__(self, sources: Sequence[ExampleSource]) -> None:
        """Put the sources one after the other.

        Raises:
            ValueError: they hold no pair at all.
        """
        self.pairs: tuple[Example, ...] = tuple(p for source in sources for p in source.pairs)
        self.counts = {source.name: len(source.pairs) for source in sources}
        self.benchmarks = tuple(sorted({name for s in sources for name in s.benchmarks}))
        if not self.pairs:
            faults = {source.name: dict(source.left_out) for source in sources}
            raise ValueError(f"there is no usable pair to tune on; left out: {faults}")

    @property
    def sha256(self) -> str:
        """Hash of all prompts and answers in their order."""
        return content_key([[pair.prompt, pair.answer] for pair in self.pairs], 64)


@dataclass(frozen=True)
class RewriterJob(Job):
    """An adapter for one base model.

    Attributes:
        base: the model that gets the adapter.
        config: hyper-parameters.
        prompt_sha256: hash of the prompt template of modification texts.
        data_sha256: hash of the pairs.
        counts: source -> number of pairs.
        benchmarks: benchmarks whose texts are among the answers.
    """

    KIND: ClassVar[str] = "rewriter"
    LAST: ClassVar[str] = CARD_FILE

    base: BaseLlm
    config: TuningConfig
    prompt_sha256: str
    data_sha256: str
    counts: Mapping[str, int]
    benchmarks: tuple[str, ...]

    def require_host(self) -> None:
        """Refuse a device of the base model that is not there."""
        require_device(self.base.device)

    @cached_property
    def base_files(self) -> Mapping[str, str]:
        """File name -> sha256 of the base model."""
        base = self.base
        return identity_or_load(base.model, base.revision or None, base.load_weights)

    @cached_property
    def card(self) -> AdapterCard:
        """The facts that are published with the adapter."""
        files = self.base_files
        folder = checkpoint_folder(self.base.model, self.base.revision or None)
        is_chat = self.base.chat == "auto" and has_chat_template(folder)
        return AdapterCard(
            base=model_name(self.base.model, files),
            base_weights_sha256=weights_hash(files),
            form="chat" if is_chat else "raw",
            prompt_sha256=self.prompt_sha256,
            data_sha256=self.data_sha256,
            pairs=self.counts,
            saw_benchmark_texts=self.benchmarks,
            settings=self.config.model_dump() | {"dtype": self.base.dtype_name},
            versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
        )

    @property
    def spec(self) -> dict[str, Any]:
        """The identity of the adapter."""
        card = asdict(self.card)
        del card["versions"]
        return {"producer": PRODUCER, "base_files": dict(self.base_files), **card}


@publishing_once("tune rewriter")
def tune_rewriter(job: RewriterJob, data: TuningData) -> dict[str, Any]:
    """Tune from the last saved state and publish; a published adapter is left alone."""
    from models.instructcir.rewriter_tuning import RewriterTuning

    if not job.is_published:
        training = RewriterTuning(job.config, job.base, data.pairs)
        train_and_publish(
            job,
            training,
            lambda: adapter_folder(training, job.card),
            title="rewriter",
            state=f"{job.folder}.state.pt",  # next to the folder, which a server reads as it is
            save_every=SAVE_EVERY,
        )
    losses = Location(job.root).read_bytes(f"{job.folder}/losses.csv").decode().split()
    return {
        "adapter": job.place,
        "steps": len(losses) - 1,
        "first_loss": float(losses[1].partition(",")[2]),
        "last_loss": float(losses[-1].partition(",")[2]),
    }


def adapter_folder(training: RewriterTuning, card: AdapterCard) -> dict[str, bytes]:
    """The published files, file name -> contents."""
    losses = [f"{step},{loss:.6g}" for step, loss in enumerate(training.losses, start=1)]
    return {
        **training.adapter_files(card.base),
        "losses.csv": "\n".join(["step,loss", *losses, ""]).encode(),
        "README.md": model_card(card).encode(),
        CARD_FILE: card.as_json().encode(),
    }


@task(task_run_name="merge rewriter", cache_policy=NO_CACHE)
@redacting
def export_merged(job: RewriterJob, folder: str) -> str:
    """Write the base model with the published adapter merged into it; does nothing if it is there.

    Raises:
        ValueError: the folder holds something else.
    """
    from models.instructcir.rewriter_tuning import merge_adapter

    target, card = Path(folder), replace(job.card, merged=True)
    if target.exists():
        there = read_card(target)
        if there is None or replace(there, versions=card.versions).as_json() != card.as_json():
            raise ValueError(f"{folder} exists and holds something else; name another folder")
        return str(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    source = Location(job.root).child(job.folder)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".merging-") as staging:
        adapter, merged = Path(staging, "adapter"), Path(staging, "merged")
        adapter.mkdir()
        for name in _PEFT_FILES:
            (adapter / name).write_bytes(source.read_bytes(name))
        merge_adapter(job.base, adapter, merged)
        (merged / "README.md").write_text(model_card(card), encoding="utf-8")
        (merged / CARD_FILE).write_text(card.as_json(), encoding="utf-8")
        merged.rename(target)
    return str(target)


def model_card(card: AdapterCard) -> str:
    """The README of an adapter or of a merged model."""
    sources = ", ".join(f"{count} from {name}" for name, count in card.pairs.items())
    settings = "\n".join(f"| {name} | {value} |" for name, value in sorted(card.settings.items()))
    endpoint = "/v1/chat/completions" if card.form == "chat" else "/v1/completions"
    kind = "language model" if card.merged else "LoRA adapter (peft)"
    zero_shot = (
        f"**Not zero-shot**: annotated texts of {' and '.join(card.saw_benchmark_texts)} were "
        "among the training data. Everything made with it must carry that label."
        if card.saw_benchmark_texts
        else "No text of a benchmark was among the training data, by the records of its sources."
    )
    return f"""---
library_name: {"transformers" if card.merged else "peft"}
pipeline_tag: text-generation
---
# Rewriter of modification texts

A {kind} that writes the text leading from one image's caption to another's (InstructCIR), made by
`cirflow run finetune-rewriter`. Use it for this task only: other tasks of the base model may be
lost with it, unless they were rehearsed in training (`replay`).

- Base: `{card.base}`, weights {card.base_weights_sha256[:12]}.
- Prompts: {card.form} form (`{endpoint}` on a server), template {card.prompt_sha256[:12]}.
- Data: {sources}; {card.data_sha256[:12]}.
- {zero_shot}

| setting | value |
|---|---|
{settings}
"""
