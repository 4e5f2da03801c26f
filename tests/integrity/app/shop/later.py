"""Is loaded later."""
