"""Ways to and from others: released checkpoints, NIR graphs (`nir`), NeuroBench (`neurobench`)."""

from threefactor.interop.ottt import convert, import_checkpoint

__all__ = ["IMPORTERS", "convert", "import_checkpoint"]

IMPORTERS = {"ottt-nfresnet34": import_checkpoint}
"""Functions (file, run folder) that make a run of a file, by the name on the command line."""
