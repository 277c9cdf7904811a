"""Secret stores: one module each."""
