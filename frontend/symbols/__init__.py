"""Kernel addresses to (module, symbol, offset) and file:line, also after a module is gone."""
