"""Studies: training methods compared on tasks, at several KLs and with several seeds."""
