"""What is on disk, by schema: document shards, row shards, and which documents are used."""
