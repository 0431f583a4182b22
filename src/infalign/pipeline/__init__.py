"""The whole method on a run folder: calibrate, design, train, evaluate, report."""
