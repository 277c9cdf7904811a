"""Platforms: one file each, found by name. A new one passes the contract suite in tests/contracts/."""
