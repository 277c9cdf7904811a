"""Frozen nouns, ports and errors. Imports nothing else of Headway."""
