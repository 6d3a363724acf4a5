"""Cut what touches a tile out of the sources: one AOI store a tile."""
