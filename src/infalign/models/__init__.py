"""Models behind two small interfaces: samplers and scorers."""
