"""One point or many: what a machine and its work cost."""
