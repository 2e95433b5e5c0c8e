"""Which published number stands next to a result, by cases worked out from the papers' tables."""

from __future__ import annotations

import pytest

from models.retrieval.published_results import published_next_to

L14, B32 = "ViT-L-14-quickgelu openai", "ViT-B-32-quickgelu openai"
G14, OTHER = "ViT-bigG-14 laion2b_s39b_b160k", "ViT-L-14 laion2b_s32b_b82k"


@pytest.mark.parametrize(
    ("method", "benchmark", "split", "backbone", "metric", "shown"),
    [
        # The same benchmark, split and backbone: the number alone.
        ("cvsi", "cirr", "test1", L14, "recall@1", "33.81"),
        ("cvsi", "cirr", "test1", B32, "recall@1", "31.64"),
        ("cvsi", "circo", "test", G14, "map@10", "34.96"),
        ("cvsi", "fashioniq", "val", L14, "recall@10/average", "31.07"),
        ("searle-oti", "circo", "test", B32, "map@10", "7.83"),
        # Another split: its own backbone and split are written next to it.
        ("cvsi", "cirr", "val", B32, "recall@1", "31.64 (ViT-B/32, test1)"),
        ("cvsi", "circo", "val", L14, "map@10", "28.24 (ViT-L/14, test)"),
        # Other weights of an architecture are another backbone.
        ("cvsi", "cirr", "test1", OTHER, "recall@1", "33.81 (ViT-L/14, test1)"),
        ("cvsi", "circo", "val", "clip 3f2a9c1d", "map@10", "28.24 (ViT-L/14, test)"),
        # Table II of CVSI has no ViT-B/32.
        ("cvsi", "fashioniq", "val", B32, "recall@10/average", "31.07 (ViT-L/14, val)"),
        ("cvsi-no-visual", "circo", "test", B32, "map@10", "16.75 (ViT-L/14, test)"),
        # InstructCIR's Table II does not name its backbone; its main row stands before Table IV.
        ("instructcir", "cirr", "test1", L14, "recall@1", "39.28 (backbone not stated, test1)"),
        ("instructcir", "circo", "test", L14, "map@10", "13.84"),
        # Zero-shot before supervised; supervised where there is nothing else.
        ("covr", "cirr", "test1", L14, "recall@1", "39.28 (backbone not stated, test1)"),
        ("clip4cir", "cirr", "val", L14, "recall@1", "38.53 (backbone not stated, test1)"),
    ],
)
def test_a_number_that_is_not_of_the_same_run_says_what_it_is_of(
    method: str, benchmark: str, split: str, backbone: str, metric: str, shown: str
) -> None:
    found = published_next_to(method, benchmark, split, backbone, metric)
    assert found is not None
    assert found.text(metric) == shown
    assert found.comparable == ("(" not in shown)


def test_a_benchmark_of_its_own_has_no_published_numbers() -> None:
    assert published_next_to("cvsi", "", "test1", L14, "recall@1") is None
    assert published_next_to("cvsi", "sketches", "test1", L14, "recall@1") is None
    assert published_next_to("cvsi-code", "cirr", "test1", L14, "recall@1") is None
    assert published_next_to("cvsi", "cirr", "test1", L14, "map@10") is None


def test_nothing_is_comparable_with_a_drawn_benchmark() -> None:
    found = published_next_to("cvsi", "cirr", "test1", L14, "recall@1", drawn=True)
    assert found is not None
    assert not found.comparable
    assert found.text("recall@1") == "33.81 (ViT-L/14, test1)"
