"""The witnesses of a captured session, one a file; register.py lists them."""
