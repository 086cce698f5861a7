"""The search for what still points to outstanding objects, by a program in the kernel."""
