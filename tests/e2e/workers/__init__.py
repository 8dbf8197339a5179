"""Programs that stand where the worker stands: the real one, with a step, a device or a limit that makes it end so."""
