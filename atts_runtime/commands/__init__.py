"""Commands that do not run a model, a module each: their flags and what they do; and the parser of them all."""
