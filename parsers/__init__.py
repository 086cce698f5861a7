"""Parsers of the text reports of the Linux kernel: text in, frozen dataclasses out, no I/O."""
