"""Training: the KL-regularised problem solved in the trainers people use."""
