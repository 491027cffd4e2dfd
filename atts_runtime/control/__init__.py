"""The brain that runtime and simulator share: a sans-I/O controller and its scheduling policies."""

from atts_runtime.control.chains import Limits, ProtocolError
from atts_runtime.control.commands import (
    Admit,
    Alarmed,
    Call,
    Command,
    Decided,
    Draft,
    Finish,
    Fork,
    Grade,
    Hold,
    Keep,
    Score,
    TakeOver,
    Wake,
)
from atts_runtime.control.controller import Controller
from atts_runtime.control.events import (
    ChainId,
    Drafted,
    Event,
    Failed,
    Graded,
    Scored,
    Settled,
    Stopped,
    TakenOver,
)
from atts_runtime.control.gates import Due, Gate, Segment, Verdict
from atts_runtime.control.knobs import Knobs
from atts_runtime.control.policies import Policy, Recipe
from atts_runtime.control.registry import POLICIES, recipe, register_gate

__all__ = [
    "POLICIES",
    "Admit",
    "Alarmed",
    "Call",
    "ChainId",
    "Command",
    "Controller",
    "Decided",
    "Draft",
    "Drafted",
    "Due",
    "Event",
    "Failed",
    "Finish",
    "Fork",
    "Gate",
    "Grade",
    "Graded",
    "Hold",
    "Keep",
    "Knobs",
    "Limits",
    "Policy",
    "ProtocolError",
    "Recipe",
    "Score",
    "Scored",
    "Segment",
    "Settled",
    "Stopped",
    "TakeOver",
    "TakenOver",
    "Verdict",
    "Wake",
    "recipe",
    "register_gate",
]
