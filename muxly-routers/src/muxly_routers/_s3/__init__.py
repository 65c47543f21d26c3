"""The work of the router ``s3``."""
