"""From a config to the parts of a loop that can run. The only package that names every part."""
