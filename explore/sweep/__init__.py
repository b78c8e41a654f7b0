"""Running a study: which points, where, and what is kept."""
