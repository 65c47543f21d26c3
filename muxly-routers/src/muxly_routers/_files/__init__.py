"""Files that routers write: their folders, names and partitions."""
