"""Where FLOPs, bytes, energy and waiting times come from: each number with its unit and its source."""
