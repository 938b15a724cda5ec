"""Learning from preferences: losses, batches, reference log-probs, the update."""
