"""Where work executes: factories of ``concurrent.futures.Executor``."""
