"""The commands that do not run a model, a module each: their flags and what they do."""
