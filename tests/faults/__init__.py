"""The fault campaign; `campaign.py` runs it."""
