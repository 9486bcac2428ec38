"""Backbones: one file, one public class."""
