"""What the frames of a stack are: names, operations on stacks, and the rule of scope."""
