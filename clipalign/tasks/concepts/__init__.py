"""Concepts as data: what a concept file may say, and the files that clipalign ships."""
