"""pyvene's own paths, for code that imports from them."""
