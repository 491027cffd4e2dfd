"""The brain that runtime and simulator share: a sans-I/O controller and its scheduling policies."""

from atts_runtime.control.commands import Admit, Alarmed, Call, Command, Decided, Draft, Finish, Hold, Score, TakeOver
from atts_runtime.control.controller import Controller, Limits, ProtocolError
from atts_runtime.control.events import ChainId, Drafted, Event, Failed, Scored, Settled, TakenOver
from atts_runtime.control.policies import Knobs, Policy
from atts_runtime.control.registry import POLICIES

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
    "Event",
    "Failed",
    "Finish",
    "Hold",
    "Knobs",
    "Limits",
    "Policy",
    "ProtocolError",
    "Score",
    "Scored",
    "Settled",
    "TakeOver",
    "TakenOver",
]
