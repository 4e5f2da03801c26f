"""What a check of policies looks for, one kind of finding a module; :mod:`exequatur.policy.check` orders them."""
