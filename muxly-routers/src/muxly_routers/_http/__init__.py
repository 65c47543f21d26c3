"""HTTP for routers: checked addresses, deadlines, size limits, and the meaning of a status."""
