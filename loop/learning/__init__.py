"""Learning from pairs, groups or the policy's own answers: training rows, batches, losses, references, the update."""
