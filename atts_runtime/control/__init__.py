"""The brain that runtime and simulator share: a sans-I/O controller and its scheduling policies."""

from atts_runtime.control.commands import Admit, Call, Command, Decided, Draft, Finish, Hold, Score, TakeOver
from atts_runtime.control.controller import Controller, Limits, ProtocolError
from atts_runtime.control.events import ChainId, Drafted, Event, Failed, Scored, TakenOver
from atts_runtime.control.policies import POLICIES, Knobs, Policy

__all__ = [
    "POLICIES",
    "Admit",
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
    "TakeOver",
    "TakenOver",
]
