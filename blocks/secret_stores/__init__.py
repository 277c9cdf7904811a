"""Secret stores: one module each."""

__all__ = ["environment", "files", "prefect"]
