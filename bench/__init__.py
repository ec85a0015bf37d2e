"""What is measured, against what, in one run; `make bench` and `make scale`."""
