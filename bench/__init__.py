"""Benchmarks of this project and a stock project: `make bench` and `make scale`."""
