"""Frozen models, ports and errors. Imports nothing else of Headway."""
