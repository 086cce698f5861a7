"""kleak: which code path of a Linux kernel module allocates memory and never gives it back."""

__version__ = "0.1.0"
