"""Reports: saved results as figures and as one self-contained page."""
