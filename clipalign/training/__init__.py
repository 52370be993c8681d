"""Training: what is learnt from a preference set, step by step, and how it survives a crash."""
