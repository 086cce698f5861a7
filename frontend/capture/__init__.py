"""Capture: programs in the kernel, cycles of the target, and what both saw, as a Session."""
