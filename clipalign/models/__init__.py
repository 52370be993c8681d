"""Models: what a spec names, loading it, what of it trains, writing it for open_clip."""
