"""Read-only views of a workspace: examples, lineage, status, verification."""
