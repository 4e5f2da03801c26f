"""The console: pages for people who want to see what happens, served by ``exequatur console``."""
