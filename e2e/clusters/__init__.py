"""Real Kubernetes clusters for the suites: one that this repository brings up itself, kind, and any existing one."""
