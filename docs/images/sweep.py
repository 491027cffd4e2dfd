"""Draws sweep.svg, r against the number of chains, in the light or dark of whoever looks:

    atts-runtime run --questions 8 --chains 16 --out runs/m16
    atts-sim sweep barrier-scaling --set workload.kind=replay --set workload.path=runs/m16 \\
        --set 'sweep.chains=[1, 2, 4, 8, 16]' --out sweeps/m
    python docs/images/sweep.py sweeps/m
"""

from __future__ import annotations

import sys
from pathlib import Path

from atts_runtime.report.theme import standalone
from atts_sim.report.r_by_m import r_by_m
from atts_sim.results import read_sweep

shown = r_by_m(read_sweep(Path(sys.argv[1])))
path = Path(__file__).with_name("sweep.svg")
path.write_text(standalone(shown.body), encoding="utf-8")
print(f"{path}: {shown.finding}")
