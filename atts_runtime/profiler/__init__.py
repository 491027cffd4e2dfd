"""The profiler: what a run computed, moved and waited for, and what the device could have done. Loads no torch."""
