"""The classic method, without BPF: collect the kernel's text reports, recognise, compare, judge."""
