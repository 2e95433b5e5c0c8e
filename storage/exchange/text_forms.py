"""Texts from files in any of the known forms, told apart by what is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from storage.benchmarks.parsing import read_json, shorten
from storage.benchmarks.records import Benchmark
from storage.exchange.ldre import read_ldre
from storage.exchange.own_texts import OWN_ENDINGS, read_own
from storage.exchange.programs import program_form, read_program
from storage.exchange.sources import ExchangeError, SourceFile
from storage.exchange.texts import Texts, merged, require_whole


def read_texts(
    sources: Sequence[SourceFile], benchmark: Benchmark, chosen: Mapping[str, str]
) -> Texts:
    """The texts of some files about one benchmark, which together cover every query.

    Args:
        sources: The files.
        benchmark: The benchmark with its gallery.
        chosen: Our field -> the name of it in a file of LDRE's form, where it has several.

    Raises:
        BenchmarkError, ExchangeError: Naming the file and the record that does not fit.
    """
    found = [_read(source, benchmark, chosen) for source in sources]
    if not any(texts.queries or texts.images for texts in found):
        raise ExchangeError(f"{sources[0].path}: it holds no texts")
    for source, texts in zip(sources, found, strict=True):
        require_whole(benchmark, texts, str(source.path))
    whole, names = merged(found), ", ".join(str(source.path) for source in sources)
    require_whole(benchmark, whole, names)
    absent = {query.category for query in benchmark.queries if query.query_id not in whole.queries}
    if whole.queries and absent:
        raise ExchangeError(
            f"{names}: no queries of {', '.join(sorted(absent))}; import the files of all "
            "categories together"
        )
    return whole


def _read(source: SourceFile, benchmark: Benchmark, chosen: Mapping[str, str]) -> Texts:
    path = source.path
    if path.suffix.lower() in OWN_ENDINGS:
        return read_own(path, benchmark)
    data = read_json(path)
    if isinstance(data, list) and data:
        return read_ldre(data, benchmark, chosen, path)
    if isinstance(data, dict) and program_form(data):
        return read_program(data, benchmark, path)
    raise ExchangeError(
        f"{path}: {shorten(data)} is none of the known forms: a list of annotation records with "
        "multi_* fields (LDRE), an object with modified_captions, all_captions or target_captions "
        "(CIReVL, CVSI), or rows of our own in .jsonl or .parquet"
    )
