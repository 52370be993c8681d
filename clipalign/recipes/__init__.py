"""Configurations that ship with clipalign; `clipalign config cp NAME` copies one."""
