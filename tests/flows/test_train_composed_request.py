"""What is asked of `train-composed`, refused before anything is read."""

from __future__ import annotations

import pytest

from flows.requests.train_composed import train_composed


@pytest.mark.parametrize("system", ["covr", "case", "candidate-filter"])
@pytest.mark.parametrize("name", ["text_layers", "dropout"])
def test_a_setting_that_a_start_would_leave_unread_is_refused(system: str, name: str) -> None:
    value = {"text_layers": 5, "dropout": 0.3}[name]
    with pytest.raises(ValueError, match=rf"network\.{name}: .* FOLDER brings its own"):
        train_composed(system, "triplets.json", network={name: value}, start="FOLDER")


def test_an_embedding_model_starts_from_an_imported_checkpoint() -> None:
    from flows.requests.train_composed import _require_start
    from models.composed.registry import system

    with pytest.raises(ValueError, match=r"import one .cirflow import network tuned-embedding"):
        _require_start(system("tuned-embedding"), "")
