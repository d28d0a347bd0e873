"""Files on disk: reading, unpacking and transferring them safely."""
