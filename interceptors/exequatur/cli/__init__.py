"""The command line: ``exequatur …``."""
