"""Where a run's time went: measured from its records, or counted."""
