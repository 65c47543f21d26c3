"""Extraction: plans, partitions, groups, and the committer that seals them."""
