"""Compares ways of adapting a network: a study is a file, and every figure of its report comes from one table."""
