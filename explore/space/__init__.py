"""Space files: what a study varies, read and checked."""
