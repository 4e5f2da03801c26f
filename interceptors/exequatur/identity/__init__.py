"""Who acts: principals, and the identity of this process."""
