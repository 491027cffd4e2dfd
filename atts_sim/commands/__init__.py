"""Commands of ``atts-sim``, a module each."""
