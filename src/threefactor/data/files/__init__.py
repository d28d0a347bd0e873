"""Files on disk: reading and unpacking them safely."""
