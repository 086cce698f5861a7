"""Kernel addresses to (module, symbol, offset) and file:line, also after a module is gone."""

from kleak.symbols.kernel_table import KernelTable, TextRange, base_name
from kleak.symbols.module_image import ModuleImage
from kleak.symbols.symboliser import ModuleLoad, Symboliser

__all__ = ["KernelTable", "ModuleImage", "ModuleLoad", "Symboliser", "TextRange", "base_name"]
