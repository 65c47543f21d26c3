"""Files that routers write: folders, names, partitions, and the errors of writing them."""
