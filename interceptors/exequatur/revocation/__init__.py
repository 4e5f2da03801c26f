"""The revocation feed: what was revoked, signed, versioned, and followed by a fleet."""
