"""Release receipts: signed statements of what was checked, built, approved and measured, and their verification."""

__all__ = ["statement", "verification"]
