"""Objectives: what a model is rewarded for; one file, one public class."""
