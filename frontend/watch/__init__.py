"""The live view: readings of the running ledger, and how a terminal or Prometheus shows them."""
