"""Controllers: loops that reconcile what is recorded with what is."""
