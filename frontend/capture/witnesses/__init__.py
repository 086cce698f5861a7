"""Asking the kernel at capture: its log, kmemleak, reports, who holds what."""
