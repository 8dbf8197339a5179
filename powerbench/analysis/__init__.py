"""Arithmetic on what was recorded: no file is read here and no device asked."""
