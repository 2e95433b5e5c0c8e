"""Methods under a profile's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from models.cvsi_settings import CVSI, CvsiSettings
from models.method_records import Method
from models.methods import INSTRUCTCIR_WEIGHTS, METHODS, cvsi_recipes, late_fusion, method


def settings_of(name: str, profile_settings: CvsiSettings) -> CvsiSettings:
    """The settings a method runs under: the profile's, unless the row brings its own."""
    own = method(name).settings
    return profile_settings if own is CVSI else own


def configured_method(
    name: str, settings: CvsiSettings, weights: Mapping[str, float] = INSTRUCTCIR_WEIGHTS
) -> Method:
    """A method whose CVSI weights, means and similarity are those of `settings`.

    Args:
        name: A method of `METHODS`.
        settings: CVSI's choices.
        weights: Style of benchmark -> weight of the second method in a late fusion.
    """
    row = method(name)
    if row.blends is not None:
        first, second = (configured_method(part, settings) for part in row.blends)
        return replace(row, settings=settings, recipes=late_fusion(first, second, weights))
    if row.group not in ("complementary", "ablation") or not row.runs:
        return row
    left_out = without_of(row)
    return replace(row, settings=settings, recipes=cvsi_recipes(settings, left_out))


def without_of(row: Method) -> tuple[str, ...]:
    """Features that an ablation leaves out of the method that it ablates."""
    if not row.ablates:
        return ()
    whole, rest = METHODS[row.ablates].recipe("fashioniq"), row.recipe("fashioniq")
    # FashionIQ gives every part of CVSI a weight, so that a part that is not there was left out.
    gone = [name for name in whole.query if name not in rest.query]
    gone += [name for name in whole.gallery if name not in rest.gallery]
    return tuple(gone)
