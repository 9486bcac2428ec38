"""Adaptations: what of a model may change; one file, one public class."""
