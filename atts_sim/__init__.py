"""Simulator of asynchronous test-time scaling: the runtime's own controller under a simulated clock."""
