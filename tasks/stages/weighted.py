"""Rankings whose query parts are weighed for each query by a trained gate."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from models.retrieval.gate import Gate, part_names, require_parts
from models.retrieval.gate_files import gate_key, load_gate, read_gate_file
from models.retrieval.method_records import AnyRecipe
from tasks.networks import on_this_machine, why_not_zero_shot
from tasks.stages.rankings import CategoryFeatures, RankedCategory, RankingStage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from models.retrieval.gallery import Gallery
    from models.retrieval.query_weights import Parts


def gate_for(folder: str, recipe: AnyRecipe, family: str) -> Gate:
    """The gate of a benchmark family in a folder, local or s3://.

    Raises:
        GateError: there is none.
        ValueError: it weighs other parts than the method has.
    """
    found = load_gate(on_this_machine(folder), family)
    require_parts(found, recipe, folder)
    return found


class WeightedStage(RankingStage):
    """A ranking by parts whose weights a gate predicts from each query, without its targets."""

    producer: ClassVar[str] = "cirflow/weighted/1"

    gate: str
    """Folder of the gate."""

    @cached_property
    def weigher(self) -> Gate:
        """The gate of the benchmark's family.

        Raises:
            GateError: there is none.
            ValueError: it weighs other parts than the method has.
        """
        return gate_for(self.gate, self.recipe, self.benchmark.load().family)

    def identity(self) -> dict[str, Any]:
        """The parts' features, and the gate by its numbers."""
        folder = on_this_machine(self.gate)
        return {**super().identity(), "gate": gate_key(folder, self.benchmark.load().family)}

    def second_stage(self) -> tuple[dict[str, Any], list[str]]:
        """That weights are a query's own, and by which gate."""
        folder, family = on_this_machine(self.gate), self.benchmark.load().family
        said = {"per query": list(part_names(self.recipe)), "gate": gate_key(folder, family)}
        provenance = read_gate_file(folder)["provenance"]
        return {"query_weights": said}, [why_not_zero_shot({"zero_shot": True, **provenance})]

    def vectors(self, made: CategoryFeatures) -> tuple[npt.NDArray[np.float32], Gallery]:
        """Query vectors under each query's weights, and the gallery."""
        parts, images, weights = self.weighed(made)
        return parts.fused(weights), images

    def weighed(self, made: CategoryFeatures) -> tuple[Parts, Gallery, npt.NDArray[np.float64]]:
        """The parts, the gallery, and the gate's (R, A) weights."""
        from models.retrieval.query_weights import weighed

        references = made.view.references[made.rows]
        return weighed(self.recipe, self.weigher, made.queries, made.gallery, references)

    def rank_under(
        self,
        made: CategoryFeatures,
        parts: Parts,
        images: Gallery,
        weights: npt.NDArray[np.float64],
    ) -> RankedCategory:
        """Rank the queries of a category under other (R, A) weights than the gate's."""
        from models.retrieval.search import top_k

        vectors = parts.fused(weights)
        top = top_k(vectors, images.blocks(), made.depth, excluded=made.excluded)
        return RankedCategory(made, top.indices, top.scores, vectors, images)
