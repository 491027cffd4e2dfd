"""A sweep as people read it: in the terminal and as one HTML page."""
