"""The programs in the kernel: compiled, attached, steered, and what their maps say."""
