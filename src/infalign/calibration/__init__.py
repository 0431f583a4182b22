"""Calibration: raw rewards to quantiles under the reference policy."""
