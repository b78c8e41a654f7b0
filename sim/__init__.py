"""Running a plan in time."""
