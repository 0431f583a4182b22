"""The method from end to end on a run folder: calibrate, design, train, evaluate, report."""
