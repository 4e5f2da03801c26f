"""Why a decision was made, and who could do what."""
