"""The C programs that run in the kernel. A package, so that they can be found as resources."""
