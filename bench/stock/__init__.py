"""
A stock project to compare with, built by the documentation of Django, DRF and simplejwt.

Rotation and blacklist are on, connections are kept, and lists are pages with a count. Nothing is
tuned, and nothing is slowed down.
"""
