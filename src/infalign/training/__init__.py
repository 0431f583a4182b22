"""Training: KL-regularized RL and its offline counterparts, in widely used trainers."""
