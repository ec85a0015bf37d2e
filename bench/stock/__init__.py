"""
What one gets by following the documentation of Django, DRF and simplejwt, to compare with.

Rotation and blacklist are on, connections are kept, and lists are pages with a count; nothing is
made slower than it comes, nothing is tuned.
"""
