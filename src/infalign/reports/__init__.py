"""Reports: saved results as figures and one self-contained page."""
