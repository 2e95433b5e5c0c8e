"""The papers' published numbers, for the leaderboard to show next to our own.

Sources: CVSI (Tables I to V) and InstructCIR (Tables II to V, and the table of its Section IV-D on
generated test texts, which has no number). Values are percent as printed;
a value that a table leaves out is absent here. Metric names are those of
`models.retrieval.metrics`.
InstructCIR's Tables II and IV disagree on one number of its 300k row (CIRR R@1 39.28 and 38.86; the
former is CoVR's value too); the table named in `PaperResult.table` is the one that is given. Three
of the averages in its Table II are not the means of their columns, and Table V's last row lacks
both EMA and cross-attention, so that only its second row leaves out a single part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

VIT_B32: Final = "ViT-B/32"
VIT_L14: Final = "ViT-L/14"
VIT_G14: Final = "ViT-G/14"

TEST_TEXTS: Final = "test texts"
"""Name here of InstructCIR's unnumbered table of annotated and generated test texts."""


@dataclass(frozen=True, slots=True)
class PaperResult:
    """One method's numbers on one benchmark, as a paper prints them.

    Attributes:
        paper: `CVSI` or `InstructCIR`.
        table: The table's number in that paper.
        benchmark: The benchmark's name here: `cirr`, `circo` or `fashioniq`.
        split: The split scored.
        backbone: Backbone as the table names it; empty where the table does not.
        method: Name of the row in `models.retrieval.methods.METHODS`.
        metrics: Metric name -> percent.
        note: The difference from other rows of the same method, such as training data.
        supervised: Whether it was trained on the benchmark's own training split, or on
            modification texts of it.
        variant: Whether the paper gives another row of the same method as the main one.
    """

    paper: str
    table: str
    benchmark: str
    split: str
    backbone: str
    method: str
    metrics: Mapping[str, float]
    note: str = ""
    supervised: bool = False
    variant: bool = False


_CIRCO: Final = ("map@5", "map@10", "map@25", "map@50")
_CIRR: Final = ("recall@1", "recall@5", "recall@10")
_SUBSET: Final = ("recall_subset@1", "recall_subset@2", "recall_subset@3")
_FASHIONIQ: Final = tuple(
    f"recall@{k}/{name}" for name in ("shirt", "dress", "toptee", "average") for k in (10, 50)
)

# Backbone, method, CIRCO test, CIRR test recall, CIRR test subset recall.
_CVSI_TABLE_1: Final = """
B palavra       4.61  5.32  6.33  6.80 16.62 43.49 58.51 41.61 65.30 80.94
B searle        9.35  9.94 11.13 11.84 24.00 53.42 66.82 54.89 76.60 88.19
B searle-oti    7.14  7.83  8.99  9.60 24.27 53.25 66.10 54.10 75.81 87.33
B cirevl       14.94 15.42 17.00 17.82 23.94 52.51 66.00 60.17 80.05 90.19
B ldre         17.96 18.32 20.21 21.11 25.69 55.13 69.04 60.53 80.65 90.70
B cvsi         21.67 22.47 24.46 25.44 31.64 62.43 74.19 64.17 82.48 91.69
L image-only    1.28  1.70  2.35  2.69  3.64 12.75 23.32 11.58 31.41 45.26
L text-only     2.63  2.85  3.30  3.58 20.51 43.21 55.08 60.39 80.02 90.05
L captioning    1.65  1.96  2.42  2.71  4.05 15.88 25.69 20.87 40.60 60.89
L pic2word      8.72  9.51 10.64 11.29 23.90 51.70 65.30 53.76 74.46 87.08
L searle       11.68 12.73 14.33 15.12 24.24 52.48 66.29 53.76 75.01 88.19
L searle-oti   10.18 11.03 12.72 13.67 24.87 52.31 66.29 53.80 74.31 86.94
L lincir       12.59 13.58 15.00 15.85 25.04 53.25 66.68 57.11 77.37 88.89
L cirevl       18.57 19.01 20.89 21.80 24.55 52.31 64.92 59.54 79.88 89.69
L ldre         23.35 24.03 26.44 27.50 26.53 55.57 67.54 60.43 80.31 89.90
L cvsi         26.89 28.24 30.79 31.89 33.81 63.64 75.04 65.81 82.92 92.17
G pic2word      5.54  5.59  6.68  7.12 30.41 58.12 69.23 68.92 85.45 93.04
G searle       13.20 13.85 15.32 16.04 34.80 64.07 75.11 68.72 84.70 93.23
G lincir       19.71 21.01 23.13 24.18 35.25 64.72 76.05 63.35 82.22 91.98
G cirevl       26.77 27.59 29.96 31.03 34.65 64.29 75.06 67.95 84.87 93.21
G ldre         31.12 32.24 34.95 36.03 36.15 66.39 77.25 68.82 85.66 93.76
G cvsi         33.51 34.96 37.86 38.98 41.37 72.58 82.39 71.35 87.54 94.68
"""

# Backbone, method, FashionIQ validation: R@10 and R@50 of shirt, dress, toptee, average.
_CVSI_TABLE_2: Final = """
L pic2word   26.20 43.60 20.00 40.20 27.90 47.40 24.70 43.70
L searle     26.89 45.58 20.48 43.13 29.32 49.97 25.56 46.23
L searle-oti 30.37 47.49 21.57 44.47 30.90 51.76 27.61 47.90
L lincir     29.10 46.81 20.92 42.44 28.81 50.18 26.28 46.49
L cirevl     29.49 47.40 24.79 44.76 31.36 53.65 28.55 48.57
L ldre       31.04 51.22 22.93 46.76 31.57 53.64 28.51 50.54
L cvsi       33.56 50.15 25.63 48.59 34.01 54.05 31.07 50.93
G pic2word   33.17 50.39 25.43 47.65 35.24 57.62 31.28 51.89
G searle     36.46 55.35 28.16 50.32 39.83 61.45 34.81 55.71
G lincir     46.76 65.11 38.08 60.88 50.48 71.09 45.11 65.69
G cirevl     33.71 51.42 27.07 49.53 35.80 56.14 32.19 52.36
G ldre       35.94 58.58 26.11 51.12 35.42 56.67 32.49 55.46
G cvsi       44.95 63.59 40.75 63.71 49.21 69.86 44.97 65.72
"""

# Method, CIRCO test mAP@10, FashionIQ validation average R@10; ViT-L/14.
_CVSI_TABLE_3: Final = """
cvsi-no-visual          16.75 15.81
cvsi-no-semantic        14.15 28.44
cvsi-no-reference-image 28.24 28.11
cvsi-no-fine-grained    24.96 20.63
cvsi-no-edited-captions 17.16 29.39
cvsi-no-target-image    19.67 16.08
cvsi-no-target-captions 23.24 29.54
cvsi                    28.24 31.07
"""

# Backbone, text generator, CIRCO test mAP@5, 10, 25, 50 of CVSI.
_CVSI_TABLE_4: Final = """
B Llama2-70B    20.87 21.58 23.52 24.46
B GPT-3.5-Turbo 21.67 22.47 24.46 25.44
B GPT-4o        22.45 23.20 25.28 26.29
L Llama2-70B    25.84 26.99 29.52 30.56
L GPT-3.5-Turbo 26.89 28.24 30.79 31.89
L GPT-4o        27.63 28.91 31.59 32.66
G Llama2-70B    32.50 33.89 36.78 37.89
G GPT-3.5-Turbo 33.51 34.96 37.86 38.98
G GPT-4o        35.03 36.48 39.55 40.68
"""

# Method, hours of training, seconds a query of captioner and text generator, of retrieval, CIRCO
# test mAP@10, CIRR test R@10; ViT-L/14, as printed.
_CVSI_TABLE_5: Final = """
pic2word >>5    - 0.02  9.51  65.3
searle   >>5    - 0.02 12.73 66.29
lincir   1.5    - 0.02 13.58 66.68
cirevl     -  1.6 0.03 19.01 64.92
ldre       - 23.9 0.05 24.03 67.54
cvsi     1.5 24.7 0.05 28.24 75.04
"""

# Method, z (zero-shot), v (zero-shot, not the main row of the method) or s (supervised), training
# data, CIRR test R@1, R@5, R@50, R_subset@1, FashionIQ validation average R@10, R@50, mean of both
# as printed.
_INSTRUCTCIR_TABLE_2: Final = """
image-only       z CLIP                    8.42 23.81 61.03 22.98  6.33 15.21 10.78
text-only        z CLIP                   22.98 46.83 82.36 63.88 19.05 37.82 28.63
image-text-sum   z CLIP                   11.71 35.06 77.49 32.77 24.60 43.21 33.91
instructpix2pix  z CLIP/LAION             22.03 47.81 83.52 61.67  9.86 19.63 15.03
palavra          z PerVL-1M               16.62 43.49 83.95 41.61 19.76 37.25 28.51
pic2word         z CC3M-3M                23.90 51.70 87.80     - 24.70 43.70 34.20
searle-oti       z COCO-118k              24.87 52.31 88.58 53.80 27.61 47.90 37.76
compodiff        z SynthTriplets-18M      19.37 53.81 90.85 28.96 37.36 50.85 44.11
case             z LaSCo-360k             35.40 65.78 94.63 64.29     -     -     -
transagg         z LAION-32k              37.87 68.88 93.86 69.79 34.64 55.72 45.18
covr             z WebVid-CoVR-1.6M       39.28 68.22 94.65     - 27.70 44.63 36.15
instructcir      v LAION-300k             38.56 69.21 95.21 68.22 36.56 56.33 46.89
instructcir      z Fashion200k/NLVR-300k  39.28 69.62 95.88 69.87 37.32 56.84 47.08
clip4cir         s CIRR/FashionIQ         38.53 69.98 95.93 68.19 38.32 61.74 50.03
blip4cir-bi      s CIRR/FashionIQ         40.15 73.08 96.27 72.10 43.49 67.31 55.40
case             s CIRR/FashionIQ         49.35 80.02 97.47 76.48 48.79 70.68 59.74
candidate-filter s CIRR/FashionIQ         44.70 76.59 97.18 75.02 46.15 69.15 57.65
candidate-rerank s CIRR/FashionIQ         50.55 81.75 97.18 80.04 51.17 73.13 62.15
covr             s CIRR/FashionIQ         50.41 80.96 97.64     - 49.40 70.98 60.19
instructcir      s CIRR/FashionIQ         50.70 81.61 98.27 76.10 49.03 70.96 60.00
"""

# Backbone, method, CIRCO test mAP@5, 10, 25, 50.
_INSTRUCTCIR_TABLE_3: Final = """
B searle-oti   7.14  7.83  8.99  9.60
B searle       9.35  9.94 11.13 11.84
B instructcir 10.23 10.98 12.07 13.88
L pic2word     8.72  9.51 10.64 11.29
L searle-oti  10.18 11.03 12.72 13.67
L searle      11.68 12.73 14.33 15.12
L instructcir 12.94 13.84 15.62 16.34
"""

# Method, z or s, training data (images, captions, text generator, triplets), CIRR test R@1, R@5,
# R_subset@1, FashionIQ validation average R@10, R@50; ViT-L/14. 33B-GT: the text generator was
# fine-tuned on the benchmarks' own modification texts.
_INSTRUCTCIR_TABLE_4: Final = """
transagg    z TransAgg/LAION/template-32k        33.04 64.39 63.37 32.63 53.65
transagg    z TransAgg/LAION/ChatGPT-32k         32.67 64.05 62.98 32.45 53.15
transagg    z Fashion200k/NLVR/LLaVA/33B-32k     33.26 65.67 64.05 32.91 53.41
instructcir z TransAgg/LAION/33B-32k             35.58 67.85 66.87 33.52 54.07
instructcir z Fashion200k/NLVR/LLaVA/33B-32k     35.83 68.04 66.93 33.78 54.82
instructcir z CIRR-images/LLaVA/33B-3.6k         34.74 65.83 66.43 32.21 53.19
instructcir z FashionIQ-images/LLaVA/33B-5.9k    33.08 65.98 66.38 33.64 54.62
instructcir z Fashion200k/NLVR/LLaVA/33B-65k     36.72 68.49 67.03 34.85 55.16
instructcir z Fashion200k/NLVR/LLaVA/33B-95k     36.92 68.64 68.34 35.94 55.78
instructcir z Fashion200k/NLVR/LLaVA/33B-200k    38.04 69.56 69.45 36.64 56.18
instructcir z Fashion200k/NLVR/LLaVA/33B-300k    38.86 69.62 69.87 37.32 56.84
instructcir s Fashion200k/NLVR/LLaVA/33B-GT-300k 41.32 72.55 71.01 38.92 58.43
"""

# Network, CIRR test R@1, R@5, FashionIQ validation average R@10, R@50; 32k triplets, ViT-L/14.
_INSTRUCTCIR_TABLE_5: Final = """
full                                          35.83 68.04 33.78 54.82
without-EMA                                   35.04 67.85 33.16 54.23
without-EMA-and-cross-attention-(CLIP-itself) 28.45 59.33 24.53 45.67
"""

# Texts of the test queries, CIRR test R@1, R@5, FashionIQ validation average R@10, R@50; 32k
# triplets. The paper prints +0.04 for the last difference, which is 0.05.
_INSTRUCTCIR_TEST_TEXTS: Final = """
annotated 35.83 68.04 33.78 54.82
generated 37.45 68.31 33.92 54.87
"""

_BACKBONES: Final = {"B": VIT_B32, "L": VIT_L14, "G": VIT_G14}


_OWN_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    VIT_B32: ("ViT-B-32-quickgelu openai", "ViT-B-32 openai"),
    VIT_L14: ("ViT-L-14-quickgelu openai", "ViT-L-14 openai"),
    VIT_G14: ("ViT-bigG-14 laion2b_s39b_b160k",),
}
"""Names of the papers' backbones here, model and weights."""


@dataclass(frozen=True, slots=True)
class PaperCost:
    """A row of CVSI's Table V: what a method costs, as printed.

    Attributes:
        method: Name of the row in `models.retrieval.methods.METHODS`.
        training: Hours of training; empty without any.
        texts: Seconds a query of captioner and text generator; empty without them.
        retrieval: Seconds a query of retrieval.
        quality: CIRCO test mAP@10 and CIRR test R@10, percent.
    """

    method: str
    training: str
    texts: str
    retrieval: str
    quality: tuple[str, str]


def paper_backbone(name: str) -> str:
    """The papers' name of a backbone that is named as here; empty where they have none."""
    return next((paper for paper, own in _OWN_NAMES.items() if name in own), "")


def own_backbone(paper: str) -> str:
    """The name here of a backbone of the papers: model and weights."""
    return _OWN_NAMES[paper][0]


def paper_results(benchmark: str) -> tuple[PaperResult, ...]:
    """All published numbers on a benchmark, in the papers' order."""
    return tuple(result for result in PAPER_RESULTS if result.benchmark == benchmark)


@dataclass(frozen=True, slots=True)
class Published:
    """A published row to show next to a result of ours.

    Attributes:
        result: The row.
        comparable: Whether it was measured on the same benchmark, split and backbone.
    """

    result: PaperResult
    comparable: bool

    @property
    def where(self) -> str:
        """The row's own backbone and split."""
        return f"{self.result.backbone or 'backbone not stated'}, {self.result.split}"

    @property
    def apart(self) -> str:
        """`where`, to be written next to the number; empty where the number is comparable."""
        return "" if self.comparable else self.where

    def text(self, metric: str) -> str:
        """The number as a table shows it, such as `28.24 (ViT-L/14, test)`."""
        return f"{self.result.metrics[metric]:.2f}" + (f" ({self.apart})" if self.apart else "")


def published_next_to(
    method: str, benchmark: str, split: str, backbone: str, metric: str, *, drawn: bool = False
) -> Published | None:
    """The published row to show next to a result of ours.

    The method's main row stands before its variants, and zero-shot before supervised; among these,
    the row of the same split and backbone. Where there is none, the nearest: one of the same split,
    then one of the same backbone, then one of ViT-L/14, with which most systems are published.

    Args:
        method: A name of `models.retrieval.methods.METHODS`.
        benchmark: The benchmark's name in the papers' rows; empty where no paper knows it.
        split: The split of our result.
        backbone: Its backbone's name here, such as `ViT-L-14-quickgelu openai`.
        metric: A metric that the row must have.
        drawn: Whether the benchmark is only drawn after the published one. Nothing is then
            comparable.

    Returns:
        The row, or None where the papers have no number of the method on the benchmark.
    """
    own = paper_backbone(backbone)
    rows = [
        row for row in paper_results(benchmark) if row.method == method and metric in row.metrics
    ]
    if not rows:
        return None
    nearest = min(
        rows,
        key=lambda row: (
            row.variant,
            row.supervised,
            row.split != split,
            row.backbone != own,
            row.backbone != VIT_L14,
        ),
    )
    same = not drawn and bool(own) and (nearest.split, nearest.backbone) == (split, own)
    return Published(nearest, same)


def _rows(table: str) -> Iterator[list[str]]:
    return (line.split() for line in table.strip().splitlines())


def _metrics(names: Sequence[str], values: Sequence[str]) -> Mapping[str, float]:
    pairs = zip(names, values, strict=True)
    return MappingProxyType({name: float(value) for name, value in pairs if value != "-"})


def _cvsi() -> Iterator[PaperResult]:
    for key, name, *values in _rows(_CVSI_TABLE_1):
        row = (_BACKBONES[key], name)
        yield PaperResult("CVSI", "I", "circo", "test", *row, _metrics(_CIRCO, values[:4]))
        yield PaperResult("CVSI", "I", "cirr", "test1", *row, _metrics(_CIRR + _SUBSET, values[4:]))
    for key, name, *values in _rows(_CVSI_TABLE_2):
        metrics = _metrics(_FASHIONIQ, values)
        yield PaperResult("CVSI", "II", "fashioniq", "val", _BACKBONES[key], name, metrics)
    for name, circo, fashioniq in _rows(_CVSI_TABLE_3):
        metrics = _metrics(("map@10",), [circo])
        yield PaperResult("CVSI", "III", "circo", "test", VIT_L14, name, metrics)
        metrics = _metrics(("recall@10/average",), [fashioniq])
        yield PaperResult("CVSI", "III", "fashioniq", "val", VIT_L14, name, metrics)
    for key, generator, *values in _rows(_CVSI_TABLE_4):
        yield PaperResult(
            *("CVSI", "IV", "circo", "test", _BACKBONES[key], "cvsi", _metrics(_CIRCO, values)),
            note=generator,
            variant=True,
        )


def _instructcir() -> Iterator[PaperResult]:
    cirr = ("recall@1", "recall@5", "recall@50", "recall_subset@1")
    fashioniq = ("recall@10/average", "recall@50/average", "average")
    for name, kind, note, *values in _rows(_INSTRUCTCIR_TABLE_2):
        for benchmark, split, metrics in (
            ("cirr", "test1", _metrics(cirr, values[:4])),
            ("fashioniq", "val", _metrics(fashioniq, values[4:])),
        ):
            if metrics:
                yield PaperResult(
                    *("InstructCIR", "II", benchmark, split, "", name, metrics, note),
                    supervised=kind == "s",
                    variant=kind == "v",
                )
    for key, name, *values in _rows(_INSTRUCTCIR_TABLE_3):
        metrics = _metrics(_CIRCO, values)
        yield PaperResult("InstructCIR", "III", "circo", "test", _BACKBONES[key], name, metrics)
    for name, kind, note, *values in _rows(_INSTRUCTCIR_TABLE_4):
        yield from _variants("IV", name, note, values[:3], values[3:], kind == "s")
    for note, *values in _rows(_INSTRUCTCIR_TABLE_5):
        network = f"32k, {note.replace('-', ' ').replace('cross attention', 'cross-attention')}"
        yield from _variants("V", "instructcir", network, values[:2], values[2:])
    for texts, *values in _rows(_INSTRUCTCIR_TEST_TEXTS):
        yield from _variants(
            TEST_TEXTS, "instructcir", f"32k, {texts} texts", values[:2], values[2:]
        )


def _variants(
    table: str,
    name: str,
    note: str,
    cirr: Sequence[str],
    fashioniq: Sequence[str],
    supervised: bool = False,
) -> Iterator[PaperResult]:
    names = ("recall@1", "recall@5", "recall_subset@1")[: len(cirr)]
    for benchmark, split, metrics in (
        ("cirr", "test1", _metrics(names, cirr)),
        ("fashioniq", "val", _metrics(("recall@10/average", "recall@50/average"), fashioniq)),
    ):
        yield PaperResult(
            *("InstructCIR", table, benchmark, split, VIT_L14, name, metrics, note),
            supervised=supervised,
            variant=True,
        )


PAPER_RESULTS: Final = (*_cvsi(), *_instructcir())


def _costs() -> Iterator[PaperCost]:
    for name, *values in _rows(_CVSI_TABLE_5):
        training, texts, retrieval, circo, cirr = ("" if v == "-" else v for v in values)
        yield PaperCost(name, training, texts, retrieval, (circo, cirr))


PAPER_COSTS: Final = tuple(_costs())
