"""The folder of a run on disk: its one reader, its one writer, its lock and its checkpoints."""
