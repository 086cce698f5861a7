"""Whether the programs see what they hook, measured on the running kernel at the start."""
