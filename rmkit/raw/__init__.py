"""Raw records: where they come from, each with its place there, whole or in chunks."""
