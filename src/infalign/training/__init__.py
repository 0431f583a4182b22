"""Training: KL-regularized RL and its offline relatives, in the trainers people use."""
