"""Datasets known by name: one description each, in catalogue.yaml, and one reader for all."""
