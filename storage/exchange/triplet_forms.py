"""The forms in which sets of triplets circulate: names of fields, and names of images.

TransAgg's LAION-CIR, LaSCo, CoVR (WebVid and CC-CoIR) and MegaPairs have the fields that their
publishers document. The files of MTCIR and SynthTriplets18M were not seen: `fields` names theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from storage.exchange.records import KEY, Record, read_records
from storage.exchange.sources import ExchangeError

_ENDING: Final = re.compile(r"\.(?:jpe?g|png|webp|bmp|gif|tiff?|mp4|webm)$", re.IGNORECASE)
_PARTS: Final = ("reference", "target", "text", "target_caption")


@dataclass(frozen=True)
class PublishedTriplet:
    """A record of a published set.

    Attributes:
        where: Its place in the file, in words.
        reference: Name of the reference image, as written.
        target: Name of the target image.
        texts: Its modification texts.
        target_caption: Caption of the target, where the file has one.
    """

    where: str
    reference: str
    target: str
    texts: tuple[str, ...]
    target_caption: str | None = None


@dataclass(frozen=True)
class TripletForm:
    """A form of triplets.

    Attributes:
        words: What it is, for the help.
        fields: Our name -> name of the field; several alternatives, the first that is there.
        name: An image's name without folder and ending -> what is compared.
        ending: Ending of the files that it is written to.
        seen: Whether a file of this form was looked at; otherwise all fields must be named.
    """

    words: str
    fields: Mapping[str, tuple[str, ...]]
    name: Callable[[str], str] = str
    ending: str = ".jsonl"
    seen: bool = True


def image_number(name: str) -> str:
    """The number at the end of a COCO name, without leading zeros."""
    found = re.search(r"\d+$", name)
    return found.group().lstrip("0") or "0" if found else name


def seven_digits(name: str) -> str:
    """LAION's id as TransAgg names its files."""
    return name.zfill(7) if name.isdigit() else name


FORMS: Final[Mapping[str, TripletForm]] = {
    "own": TripletForm(
        "reference, target (image ids or paths), text or list of texts; JSONL, Parquet, CSV, JSON",
        {name: (name,) for name in _PARTS},
    ),
    "transagg": TripletForm(
        "LAION-CIR of TransAgg: laion_llm_info.json, laion_template_info.json",
        {
            "reference": ("ref_image_id", KEY),
            "target": ("tgt_image_id",),
            "text": ("relative_cap",),
            "target_caption": ("tgt_cap",),
        },
        seven_digits,
        ".json",
    ),
    "lasco": TripletForm(
        "LaSCo: lasco_train.json, lasco_val.json",
        {"reference": ("query-image",), "target": ("target-image",), "text": ("query-text",)},
        image_number,
        ".json",
    ),
    "covr": TripletForm(
        "CoVR: webvid2m-covr_train.csv, CC-CoIR",
        {
            "reference": ("pth1",),
            "target": ("pth2",),
            "text": ("edit",),
            "target_caption": ("txt2",),
        },
        ending=".csv",
    ),
    "megapairs": TripletForm(
        "MegaPairs: q_img, q_text, t_img, as JSON lines",
        {"reference": ("q_img",), "target": ("t_img",), "text": ("q_text",)},
    ),
    "mtcir": TripletForm(
        "MTCIR: image, target_image, modifications, unless `--fields` says otherwise",
        {"reference": ("image",), "target": ("target_image",), "text": ("modifications",)},
    ),
    "synthtriplets": TripletForm(
        "SynthTriplets18M, its fields named by `--fields`", {}, seen=False
    ),
}
"""Form -> what is in its files."""


def stem_of(path: str) -> str:
    """A name without folder, archive and the ending of a picture or video."""
    return _ENDING.sub("", path.rpartition("!")[2].rpartition("/")[2])


def read_triplets(path: Path, form: str, fields: Mapping[str, str]) -> Iterator[PublishedTriplet]:
    """The triplets of a file, one by one.

    Args:
        path: JSON, JSON lines, CSV or Parquet.
        form: One of `FORMS`.
        fields: Our name -> name of the field, where it is another than the form's.

    Raises:
        ExchangeError: a record lacks a field or holds another kind of value; it is named.
    """
    names = _fields(form, fields)
    for where, record in read_records(path):
        place = f"{path}, {where}"
        yield PublishedTriplet(
            where=place,
            reference=_image(_value(record, names, "reference", place), place, "reference"),
            target=_image(_value(record, names, "target", place), place, "target"),
            texts=_texts(_value(record, names, "text", place), place),
            target_caption=_caption(record, names),
        )


def to_record(form: str, triplet: PublishedTriplet) -> Record:
    """A triplet as a record of a form.

    Raises:
        ExchangeError: the form's fields are not known.
    """
    names = {ours: theirs[0] for ours, theirs in FORMS[form].fields.items()}
    if not names:
        raise ExchangeError(f"the fields of {form} are not known here; export as own instead")
    one, name = (lambda path: FORMS[form].name(stem_of(path))), triplet.texts
    sides: dict[str, Any] = {"reference": triplet.reference, "target": triplet.target}
    if form == "transagg":
        sides = {side: one(path) for side, path in sides.items()}
    elif form == "lasco":
        sides = {side: _numbered(one(path), path) for side, path in sides.items()}
    elif form == "covr":
        sides = {side: _ENDING.sub("", path) for side, path in sides.items()}
    listed = form in ("megapairs", "mtcir")
    record = {names[side]: value for side, value in sides.items()}
    record[names["text"]] = list(name) if listed else name[0]
    if "target_caption" in names:
        record[names["target_caption"]] = triplet.target_caption or ""
    return record


def _numbered(name: str, path: str) -> list[int | str]:
    if not name.isdigit():
        raise ExchangeError(f"LaSCo names images by COCO's numbers; {path} has none")
    return [int(name), path]


def _fields(form: str, given: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    known = FORMS[form]
    if unknown := given.keys() - set(_PARTS):
        raise ExchangeError(f"fields are {', '.join(_PARTS)}; not {', '.join(sorted(unknown))}")
    names = {**known.fields, **{ours: (theirs,) for ours, theirs in given.items()}}
    if missing := [part for part in _PARTS[:3] if part not in names]:
        raise ExchangeError(
            f"no file of {form} was seen here: name the fields of yours, such as "
            + " ".join(f"--fields {part}=NAME" for part in missing)
        )
    return names


def _value(record: Record, names: Mapping[str, tuple[str, ...]], part: str, place: str) -> Any:
    for name in names[part]:
        if record.get(name) is not None:
            return record[name]
    own = ", ".join(map(str, record))[:200]
    raise ExchangeError(
        f"{place}: no field {' or '.join(names[part])} for the {part}; it has {own}. Name another "
        f"with --fields {part}=NAME"
    )


def _image(value: Any, place: str, part: str) -> str:
    """The name of an image; LaSCo writes [number, path], of which the number counts."""
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, bool) or not isinstance(first, str | int) or first == "":
        raise ExchangeError(f"{place}: the {part} is not the name of an image, but {value!r:.80}")
    return str(first)


def _texts(value: Any, place: str) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ExchangeError(f"{place}: the text is neither a text nor texts, but {value!r:.80}")
    return tuple(" ".join(text.split()) for text in texts)


def _caption(record: Record, names: Mapping[str, tuple[str, ...]]) -> str | None:
    found = next((record.get(name) for name in names.get("target_caption", ())), None)
    return " ".join(found.split()) or None if isinstance(found, str) else None
