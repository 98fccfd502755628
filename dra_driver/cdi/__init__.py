"""Container Device Interface: what is injected into a container, the driver's files, and the per-claim spec files."""
