"""The known data sets: one file a set, or a family of sets; `catalog` lists them."""
