"""What a step of BERT costs on this machine, in seconds and in joules, and whether that stays the same."""

__version__ = "0.1.0"
