"""Predictions against measurements: what the shipped coefficients were fitted to, and how far off they are."""
