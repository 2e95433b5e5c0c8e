"""What stages need of this machine: files, devices and servers, looked for before work begins.

Nothing heavy is imported for it: whoever asked for what cannot be done waits for no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from models.encoders.facts import encoder_is_here
from models.encoders.spec import EncoderSpec
from models.engine_settings import EngineSettings
from models.generators.server_settings import ServerSettings
from models.protocols import EngineUnavailable
from storage.tables.plans import IncompleteTable
from tasks.engines import mapping_fingerprint
from tasks.stages.captions import CaptionStage
from tasks.stages.query_features import QueryFeatureStage
from tasks.stages.stage import Stage, in_order, inputs_of, own_settings, require_hosts


def require_files(stages: Iterable[Stage]) -> None:
    """Refuse stages whose engines' files are neither on this machine nor to be fetched.

    Raises:
        ValueError: Says which, and how they get here.
    """
    found: dict[object, EncoderSpec | EngineSettings] = {}
    for stage in in_order(stages):
        for each in _engines_of(stage):  # a hub is asked once about each checkpoint
            weights = (each.source, each.pretrained) if isinstance(each, EncoderSpec) else each
            found.setdefault(weights, each)
    for engine in found.values():
        files_are_here(engine)


def require_mappings(stages: Iterable[Stage]) -> None:
    """Refuse stages whose mapping network's files hold none; torch is needed for a published one.

    Raises:
        MappingError: Says what they hold.
    """
    for stage in in_order(stages):
        if isinstance(stage, QueryFeatureStage) and stage.mapping:
            mapping_fingerprint(stage.mapping)


def files_are_here(engine: EncoderSpec | EngineSettings) -> bool:
    """Whether an engine's files are on this machine; where not, a hub that answers has them.

    Raises:
        ValueError: They are nowhere.
    """
    return encoder_is_here(engine) if isinstance(engine, EncoderSpec) else engine.is_here()


def require_hosts_of_missing(stages: Iterable[Stage]) -> None:
    """Refuse stages that lack rows, and whose devices or servers are not there to make them.

    Rows that are there need neither: they are read where no GPU is. Each server is asked once.

    Raises:
        ValueError: Names the stage and the device.
        EngineUnavailable: Names the stage, and says what is wrong with its server.
    """
    there: set[EngineSettings] = set()
    for stage in in_order(stages):
        asks = _asks_server(stage)
        if asks and _asks_none(stage):
            continue
        try:
            require_hosts(stage, there)
        except (ValueError, EngineUnavailable) as error:
            if not asks and _asks_none(stage):
                continue
            if isinstance(error, ValueError):
                raise
            raise EngineUnavailable(f"{error}{_captions_first(stage)}") from error


def _engines_of(stage: Stage) -> Iterator[EncoderSpec | EngineSettings]:
    return (own for own in own_settings(stage) if isinstance(own, EncoderSpec | EngineSettings))


def _asks_server(stage: Stage) -> bool:
    return any(isinstance(each, ServerSettings) for each in own_settings(stage))


def _captions_first(stage: Stage) -> str:
    """What can be made before a stage's server is started, where both need one GPU, in words."""
    captions = [each for each in inputs_of([stage]) if isinstance(each, CaptionStage)]
    if all(_asks_server(each) or _asks_none(each) for each in captions):
        return ""
    return ". The captions can be made before it is started (cirflow run backfill-captions)"


def _asks_none(stage: Stage) -> bool:
    """Whether a stage asks no engine, as far as its identity can be told from files.

    Each row is there, or may be made of what an earlier version was told.
    """
    before = [*inputs_of([stage]), stage]
    if not all(files_are_here(engine) for each in before for engine in _engines_of(each)):
        return False
    try:
        if stage.has_earlier:
            return True
        return stage.existing_table().completeness(stage.planned_keys()).missing == 0
    except (IncompleteTable, LookupError, OSError, ValueError):  # what it reads is not there yet
        return False
