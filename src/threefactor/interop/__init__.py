"""Ways to and from other libraries: NIR files, NeuroBench; each needs its own extra."""
