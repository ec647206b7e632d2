"""Training steps that others measured and published, against predictions to which no step was fitted."""
