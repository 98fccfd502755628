"""What a claim is on this node: its allocation, its entry in the checkpoint, its configurations, its locks.

Values and pure functions; no kind of device is known here."""
