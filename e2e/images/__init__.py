"""Container images made without a container engine: a file tree becomes a layer, layers become an OCI archive."""
