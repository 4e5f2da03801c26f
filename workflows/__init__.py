"""The reference application: an operations agent, its activities, its worker, and the demo."""
