"""The policies by name: what runtime, simulator and command line choose from."""

from __future__ import annotations

from atts_runtime.control.adaptive import AsyncAdaptive
from atts_runtime.control.asynchronous import AsyncConditional, AsyncMarginal
from atts_runtime.control.barrier import Barrier
from atts_runtime.control.policies import DraftOnly, Policy, TargetOnly

POLICIES: dict[str, type[Policy]] = {
    policy.name: policy for policy in (TargetOnly, DraftOnly, Barrier, AsyncMarginal, AsyncConditional, AsyncAdaptive)
}
