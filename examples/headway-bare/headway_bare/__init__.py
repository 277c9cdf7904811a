"""A target for Headway: bare processes behind a small HTTP router."""
