"""Target of a Vercel project."""
