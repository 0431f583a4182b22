"""Repeated attacks on a policy: attempts, success rates, their growth with n, and the report."""
