"""Is changed, loaded, and put back."""

VALUE = "usual"
