"""Galleries and models are made ready in the background once the service answers."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Literal

from storage.tables.plans import IncompleteTable

if TYPE_CHECKING:
    from deployments.service.state import Service

logger = logging.getLogger(__name__)

State = Literal["off", "warming", "ready", "failed"]


class Warming:
    """One pass over the galleries: what is ready answers at once, the rest as before."""

    def __init__(self) -> None:
        self.state: State = "off"
        self._stopping = threading.Event()

    def start(self, service: Service) -> None:
        """Begin in a thread that no search waits for, except for a model that it needs too."""
        self.state = "warming"
        threading.Thread(target=self._run, args=(service,), name="warming", daemon=True).start()

    def stop(self) -> None:
        """End after the step that is going on."""
        self._stopping.set()

    def _run(self, service: Service) -> None:
        try:
            self._warm(service)
            self.state = "off" if self._stopping.is_set() else "ready"
        except (ValueError, LookupError, OSError, RuntimeError, ImportError) as error:
            # A search that needs it says the same with an answer of its own.
            logger.warning("galleries and models are left to the first searches: %s", error)
        finally:
            if self.state == "warming":
                self.state = "failed"

    def _warm(self, service: Service) -> None:
        from deployments.service.searches import gallery_facts, method_facts, stages_of
        from models.retrieval.methods import METHODS
        from tasks.warming import warm_code, warm_gallery, warm_models

        warm_code()

        for method in METHODS:
            method_facts(service, method)
        ready = [
            (name, m) for name in service.galleries() for m in gallery_facts(service, name).methods
        ]
        for name, method in ready:
            if self._stopping.is_set():
                return
            try:
                stages = stages_of(service, name, method)
                warm_gallery(service.profile, name, stages, method, service.kept)
            except IncompleteTable:  # rows were removed meanwhile
                continue
        used = {method: name for name, method in reversed(ready)}
        for method, name in used.items():
            if self._stopping.is_set():
                return
            warm_models(service.profile, name, method, service.kept)
