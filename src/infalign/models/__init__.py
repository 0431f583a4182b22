"""Models behind two small roles: something that samples, something that scores."""
