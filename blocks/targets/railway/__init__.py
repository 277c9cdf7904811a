"""Target of a Railway service."""
