"""Runs whose worker died: without this rule the server shows them as running for ever.

Runs of deployments send a heartbeat every three minutes (PREFECT_FLOWS_HEARTBEAT_FREQUENCY). A run
that missed three of them is put into the state Crashed, which also frees its deployment's slot.
Its published parts stay, and a new run resumes there.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import AutomationCore

NAME = "cirflow: runs without a heartbeat have crashed"
SILENCE = timedelta(minutes=10)
"""Three heartbeats and some patience."""


def ensure_crash_rule(client: SyncPrefectClient, silence: timedelta = SILENCE) -> bool:
    """Make the rule unless there is one of its name; True if it was made."""
    if client.read_automations_by_name(NAME):
        return False
    client.create_automation(crash_rule(silence))
    return True


def crash_rule(silence: timedelta = SILENCE) -> AutomationCore:
    """The automation: after a heartbeat, nothing for `silence`, neither another nor an end."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    ends = ("Completed", "CompletedWithGaps", "Failed", "TimedOut", "Cancelled", "Crashed")
    waits = ("Suspended", "Paused")  # somebody resumes it; until then it has no process
    trigger = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={
            "prefect.flow-run.heartbeat",
            *(f"prefect.flow-run.{end}" for end in (*ends, *waits)),
        },
        match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=silence,
    )
    minutes = f"{silence.total_seconds() / 60:g} minutes"
    message = f"No heartbeat for {minutes}: its worker is gone. Run it again to resume."
    action = ChangeFlowRunState(state=StateType.CRASHED, message=message)
    return AutomationCore(name=NAME, trigger=trigger, actions=[action])
