"""Image and text embedding of a CLIP, as the stages do it, against the bare forward passes.

Ours decodes JPEG files, prepares and encodes them, and tokenises texts; bare are open_clip's own
`encode_image` and `encode_text` on what lies ready on the device. So a ratio far below 1 says that
the host is the bound: it is measured alone too. Other ways to run the image tower are measured
without the host, against the plain way on the same pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import torch

from bench.gpu import made
from bench.gpu.case import Case
from bench.gpu.failures import attempted
from bench.gpu.records import Dtype, Gap, Row, Work
from bench.gpu.timing import Clock, Turns, repeats
from bench.gpu.work import counted_flops, weight_bytes
from models.devices import tf32_products
from models.encoders.loading import load_encoder
from models.encoders.spec import EncoderSpec
from models.encoders.text_tower import pad_rows

if TYPE_CHECKING:
    from models.encoders.open_clip import OpenClipEncoder

_IMAGES: Final = {"ViT-B-32": 512, "ViT-L-14": 256, "ViT-bigG-14": 128}
"""Images in a forward pass: enough to fill an H100."""
_FILES: Final = 64
_TF32: Final = "fp32 in TF32"
_FORMS_OF: Final = ("ViT-B-32", "ViT-L-14")

Tower: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class _Bound:
    """Whether the host or the device decides a rate."""

    host: float
    device: float

    def __str__(self) -> str:
        which = "host-bound" if self.host < self.device else "device-bound"
        return f"{which}: host alone {self.host:,.0f}/s, device alone {self.device:,.0f}/s"


def encoder_of(name: str, case: Case, image_batch: int, **how: Any) -> OpenClipEncoder:
    """A backbone with random weights, or a small one in its place; `how` are fields of its spec."""
    with made.backbone(name, case.small) as (name, pretrained):
        spec = EncoderSpec(
            name=name,
            pretrained=pretrained,
            preprocess="clip",
            device=str(case.device),
            image_batch=image_batch,
            **{"dtype": case.half, **how},
        )
        return made.on_device(case.device, torch.float32, lambda: load_encoder(spec))


def measure(name: str, case: Case) -> Iterator[Row | Gap]:
    """Images, then texts, of one backbone; of the smaller ones other forms of the image tower."""
    batch = 8 if case.small else _IMAGES[name]
    encoder = encoder_of(name, case, batch)
    forms = _forms(name, encoder, batch, case) if name in _FORMS_OF else {}
    first = made.Photographs(made.jpegs(4), batch)
    (pixels,) = encoder.preprocess.batches(first, batch, case.device)
    left = 2 + len(forms)
    share = case.until_earlier(case.for_the_next(left))
    yield from attempted(name, f"{name} images", lambda: _images(name, encoder, batch, share))
    rest = case.until_earlier(case.for_the_next(left - 1))
    yield from attempted(name, f"{name} texts", lambda: _texts(name, encoder, rest))
    with torch.inference_mode():
        flops = counted_flops(lambda: encoder.image_features(pixels[:1])) if forms else 0
    moved = weight_bytes(encoder.model.visual) / batch + pixels[:1].nbytes
    for number, (form, make) in enumerate(forms.items()):
        dtype: Dtype = "tf32" if form == _TF32 else case.half
        work = Work(flops=flops, dtype=dtype, moved=moved)
        own = case.until_earlier(case.for_the_next(len(forms) - number))
        what = f"{name} image tower, {form}, batches of {batch}, device alone"
        measured = functools.partial(_form, name, what, pixels, own, make, work)
        yield from attempted(name, what, measured)


def _forms(
    name: str, encoder: OpenClipEncoder, batch: int, case: Case
) -> Mapping[str, Callable[[], tuple[Tower, Tower]]]:
    """Another form of the image tower and the plain one, by what the other one is."""

    def in_tf32() -> tuple[Tower, Tower]:
        exact = encoder_of(name, case, batch, dtype="fp32").image_features

        def rough(pixels: torch.Tensor) -> torch.Tensor:
            with tf32_products(case.device):
                return exact(pixels)

        return rough, exact

    def moved() -> tuple[Tower, Tower]:
        other = encoder_of(name, case, batch, channels_last=True)
        return other.image_features, encoder.image_features

    def compiled() -> tuple[Tower, Tower]:
        return encoder_of(name, case, batch, compile=True).image_features, encoder.image_features

    forms = {_TF32: in_tf32, "channels last": moved}
    return forms if case.small else forms | {"compiled": compiled}


def _form(
    name: str,
    what: str,
    pixels: torch.Tensor,
    case: Case,
    make: Callable[[], tuple[Tower, Tower]],
    work: Work,
) -> Row:
    clock, (ours, plain) = Clock(case.device), make()

    def run(tower: Tower, times: int) -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([tower(pixels).float() for _ in range(times)]).cpu().numpy()

    started = clock.seconds(lambda: run(ours, 1))
    difference = _difference(run(ours, 1), run(plain, 1))
    times, turns = _in_turns(
        clock, lambda times: run(ours, times), lambda times: run(plain, times), case
    )
    return _row(
        name,
        what,
        "images",
        turns,
        times * len(pixels),
        work=work,
        note=f"first time {started:.1f} s; features differ from plain by {difference:.1e}",
        more={"difference": difference},
    )


def _images(name: str, encoder: OpenClipEncoder, batch: int, case: Case) -> Row:
    clock, model = Clock(case.device), encoder.model
    files = made.jpegs(4 if case.small else _FILES)
    first = made.Photographs(files, batch)
    (pixels,) = encoder.preprocess.batches(first, batch, case.device)
    pixels = pixels.to(case.torch_dtype)

    def bare(times: int) -> np.ndarray:
        with torch.inference_mode():
            return (
                torch.cat([model.encode_image(pixels).float() for _ in range(times)]).cpu().numpy()
            )

    def prepared(times: int) -> None:
        pictures = made.Photographs(files, times * batch)
        for _ in encoder.preprocess.batches(pictures, batch, case.device):
            pass

    difference = _difference(encoder.encode_images(first), bare(1))
    ours = lambda times: encoder.encode_images(made.Photographs(files, times * batch))  # noqa: E731
    memory = clock.peak_of(lambda: ours(2))
    times, turns = _in_turns(clock, ours, bare, case)
    count = times * batch
    bound = _Bound(count / clock.seconds(lambda: prepared(times)), count / _bare_of(turns))
    with torch.inference_mode():
        flops = counted_flops(lambda: model.encode_image(pixels[:1]))
    moved = weight_bytes(model.visual) / batch + pixels[:1].nbytes
    return _row(
        name,
        f"{name} images of {made.PHOTOGRAPH[0]}x{made.PHOTOGRAPH[1]}, batches of {batch}",
        "images",
        turns,
        count,
        work=Work(flops=flops, dtype=case.half, moved=moved, uploaded=pixels[:1].numel()),
        memory=memory,
        note=f"{bound}; features differ from bare by {difference:.1e}",
        more={"host_rate": bound.host, "device_rate": bound.device, "difference": difference},
    )


def _texts(name: str, encoder: OpenClipEncoder, case: Case) -> Row:
    clock, model, tower = Clock(case.device), encoder.model, encoder.tower
    texts = made.captions(64 if case.small else 8192)
    batch = 64 if case.small else 1024
    ids = encoder.tokenize(texts)

    def bare(times: int) -> np.ndarray:
        with torch.inference_mode():
            parts = [
                model.encode_text(part).float() for _ in range(times) for part in ids.split(batch)
            ]
            return torch.cat(parts)[: len(texts)].cpu().numpy()

    def ours(times: int) -> np.ndarray:
        for _ in range(times - 1):
            encoder.encode_texts(texts)
        return encoder.encode_texts(texts)

    def tokenised(times: int) -> None:
        for _ in range(times):
            [tower.tokens.row(text) for text in texts]

    difference = _difference(ours(1), bare(1))
    memory = clock.peak_of(lambda: ours(1))
    times, turns = _in_turns(clock, ours, bare, case)
    count = times * len(texts)
    rows = [tower.tokens.row(text) for text in texts]
    host = count / clock.seconds(lambda: tokenised(times))
    padded = [part.to(case.device) for part in pad_rows(rows[:64])]
    with torch.inference_mode():
        flops = counted_flops(lambda: tower(padded[0], padded[1])) / len(padded[0])
    note = f"bare pads to 77 tokens; tokenising alone {host:,.0f}/s"
    return _row(
        name,
        f"{name} texts of {np.mean([len(row.ids) for row in rows]):.0f} tokens",
        "texts",
        turns,
        count,
        work=Work(flops=flops, dtype=case.half, moved=weight_bytes(tower) / len(texts)),
        memory=memory,
        note=f"{note}; features differ from bare by {difference:.1e}",
        more={"host_rate": host, "difference": difference},
    )


def _in_turns(
    clock: Clock,
    ours: Callable[[int], object],
    bare: Callable[[int], object],
    case: Case,
) -> tuple[int, Turns]:
    """How often the work is repeated in a turn, and the turns; both forms ran before."""
    once = max(clock.seconds(lambda: ours(2)) / 2, clock.seconds(lambda: bare(2)) / 2)
    times = 1 if case.small else repeats(once, case.left)
    return times, clock.interleaved(lambda: ours(times), lambda: bare(times), case.until, warm=True)


def _bare_of(turns: Turns) -> float:
    seconds = turns.bare_seconds
    assert seconds is not None
    return seconds


def _row(part: str, what: str, unit: str, turns: Turns, count: int, **others: Any) -> Row:
    return Row(
        part=part,
        what=what,
        unit=unit,
        rate=count / turns.seconds,
        bare=count / _bare_of(turns),
        spread=turns.spread,
        turns=len(turns.ours),
        **others,
    )


def _difference(ours: np.ndarray, bare: np.ndarray) -> float:
    """Largest distance of two rows, relative to the length of the bare one."""
    lengths = np.linalg.norm(bare, axis=1)
    return float((np.linalg.norm(ours - bare, axis=1) / lengths).max())


def parts() -> Sequence[str]:
    """The backbones, which are parts of their own."""
    return tuple(_IMAGES)
